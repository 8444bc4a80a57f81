package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/credential/oidc"
	"github.com/culvertdev/culvert/internal/credential/oidc/flow"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/profile"
)

// trust sets what verifies the hub, and tries it. Nothing of the caller's is sent before.
func (o *loginOptions) trust(ctx context.Context, p *profile.Profile, in io.Reader, say io.Writer) error {
	address := strings.TrimPrefix(p.Hub, "https://")
	switch {
	case o.caller.hubCA != "":
		p.HubCA, p.HubCAData, p.InsecureSkipTLSVerify = absolute(o.caller.hubCA), "", false
	case o.pin != "":
		digest, err := parseFingerprint("--hub-ca-fingerprint", o.pin)
		if err != nil {
			return err
		}
		bundle, err := fetchCA(ctx, address, digest)
		if err != nil {
			return err
		}
		p.HubCA, p.HubCAData, p.InsecureSkipTLSVerify = "", string(bundle), false
		return nil
	}
	err := o.probe(ctx, *p, say)
	if exitcode.Of(err) != exitcode.HubUnverified || p.HubCA != "" || p.HubCAData != "" {
		return err
	}
	bundle, err := o.firstUse(ctx, address, in, say)
	p.HubCAData = string(bundle)
	return err
}

// probe tells whether a hub that can be verified answers.
func (o *loginOptions) probe(ctx context.Context, p profile.Profile, say io.Writer) error {
	p.CertFile, p.KeyFile = "", ""
	t, err := transport(p)
	if err != nil {
		return err
	}
	defer t.CloseIdleConnections()
	defer progress(say, "waiting for "+p.Hub)()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Hub+"/-/healthz", http.NoBody)
	if err != nil {
		return err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return hubError(p.Hub, err)
	}
	return res.Body.Close()
}

// firstUse asks whether the CA that the hub hands out is to be trusted. Nobody but a
// person who has compared it can say so.
func (o *loginOptions) firstUse(ctx context.Context, address string, in io.Reader, say io.Writer) ([]byte, error) {
	offer, err := askCA(ctx, address)
	if err != nil {
		return nil, err
	}
	cas, err := parseCAs(offer.bundle)
	if err != nil {
		return nil, err
	}
	refuse := func(format string, args ...any) error {
		return &exitcode.Error{Code: exitcode.HubUnverified, Complete: true, Err: fmt.Errorf(format, args...)}
	}
	for _, ca := range cas {
		if offer.verify(ca) != nil {
			continue
		}
		fingerprint := pki.Fingerprint(ca)
		if !isTerminal(in) || !isTerminal(say) {
			return nil, refuse("the hub at https://%s cannot be verified: its CA is unknown here and has the SHA-256 fingerprint %s: compare that with what the hub says at its start, or culvert pki show says there, "+
				"and log in with --hub-ca-fingerprint %s, or with its CA in --hub-ca", address, fingerprint, fingerprint)
		}
		fmt.Fprintf(say, "The hub at https://%s has a certificate of a CA that this system does not know:\n\n  SHA-256 fingerprint %s\n\n"+
			"The hub says it when it starts, and so does culvert pki show there. Who runs the hub can tell you. If it is\n"+
			"another one, somebody between here and the hub reads along.\n\nIs it the same, and do you trust it from now on? [yes/no] ", address, fingerprint)
		line, err := bufio.NewReader(interruptible(ctx, in)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if strings.TrimSpace(line) != "yes" {
			return nil, refuse("the hub at https://%s is not trusted, and nothing was sent to it: ask who runs it for the fingerprint of its CA", address)
		}
		return offer.bundle, nil
	}
	return nil, refuse("the hub at https://%s cannot be verified, not even by a CA that it hands out: its certificate is expired, for another name, or somebody between reads along; --server-name gives another name", address)
}

// oidcLogin logs in at the provider.
func (o *loginOptions) oidcLogin(ctx context.Context, config oidc.Config, say io.Writer) (oidc.Login, error) {
	var login oidc.Login
	var err error
	if o.device {
		login, err = flow.Device(ctx, config, func(page, code string) {
			fmt.Fprintf(say, "Open %s in a browser and type in the code %s\n", printable(page), printable(code))
		})
	} else {
		login, err = flow.Browser(ctx, config, o.port, func(url string) {
			fmt.Fprintf(say, "Log in with your browser:\n\n  %s\n\n", printable(url))
			if !o.noBrowser && openBrowser(ctx, url) != nil {
				fmt.Fprintln(say, "No browser could be started: open that URL yourself, on this machine, or log in with --device.")
			}
		})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		err = &exitcode.Error{Code: exitcode.Unauthenticated, Complete: true, Err: fmt.Errorf("log in at %s: %w", config.Issuer, err)}
	}
	return login, err
}

// openBrowser starts the user's browser and does not wait for its end.
func openBrowser(ctx context.Context, url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...) //nolint:gosec // the URL is the provider's and this program's
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// saveToken keeps a token in a file that is its owner's alone.
func saveToken(path, token string) error {
	if err := os.MkdirAll(filepath.Dir(path), credential.ModeDir); err != nil {
		return err
	}
	return credential.WriteFile(path, []byte(token+"\n"))
}
