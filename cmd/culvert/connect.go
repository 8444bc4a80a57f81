package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
)

// hubFlags say which hub a command is for.
type hubFlags struct {
	state, hub, tokenFile, hubCA string
}

func (h *hubFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&h.state, "state", "", "state folder of a hub that runs on this machine")
	f.StringVar(&h.hub, "hub", "", "URL of a hub elsewhere, https://host:port, in place of --state")
	f.StringVar(&h.tokenFile, "token-file", "", "file with your bearer token for --hub; the hub's admins must have you")
	f.StringVar(&h.hubCA, "hub-ca", "", "PEM file of the CAs that verify --hub (default: the system's)")
}

// client returns one for the hub that the flags name; the caller closes it.
func (h *hubFlags) client() (*admin.Client, error) {
	switch {
	case h.state == "" && h.hub == "" && h.tokenFile == "" && h.hubCA == "":
		return nil, errors.New("--state, --hub: give the state folder of a hub on this machine, or the URL of a hub elsewhere with --token-file")
	case h.state != "" && (h.hub != "" || h.tokenFile != "" || h.hubCA != ""):
		return nil, errors.New("--state: leave it out with --hub, --token-file and --hub-ca, which are for a hub elsewhere")
	case h.state != "":
		return admin.NewSocketClient(h.state), nil
	case h.hub == "":
		return nil, errors.New("--hub: required with --token-file and --hub-ca")
	case h.tokenFile == "":
		return nil, errors.New("--token-file: required with --hub: a file with your bearer token")
	}
	raw, err := os.ReadFile(h.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("--token-file: %s: want one token and nothing else", h.tokenFile)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if h.hubCA != "" {
		bundle, err := pki.LoadBundle(h.hubCA)
		if err != nil {
			return nil, fmt.Errorf("--hub-ca: %w", err)
		}
		config.RootCAs = bundle.Pool()
	}
	return admin.NewHTTPSClient(h.hub, token, &http.Transport{
		TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
	})
}

// ask runs do with a client of the hub that the flags name.
func (h *hubFlags) ask(ctx context.Context, do func(ctx context.Context, c *admin.Client) error) error {
	c, err := h.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// oneName is for commands with one argument.
func oneName(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return fmt.Errorf("want one argument, the %s", what)
		}
		return nil
	}
}
