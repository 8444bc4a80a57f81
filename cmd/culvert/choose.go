package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/profile"
)

// callerFlags say which hub somebody calls, and with which credential. What no flag says
// comes from the environment or a profile, see resolve.
type callerFlags struct {
	profile, hub, hubCA     string
	tokenFile, tokenCommand string
	clientCert, clientKey   string
	insecure                bool
}

func (c *callerFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.profile, "profile", "", "profile of culvert login (default: CULVERT_PROFILE, or the current one)")
	f.StringVar(&c.hub, "hub", "", "URL of the hub, https://host:port (default: CULVERT_HUB, or the profile's)")
	f.StringVar(&c.hubCA, "hub-ca", "", "PEM file of the CAs that verify the hub (default: CULVERT_HUB_CA, the profile's, or the system's)")
	f.StringVar(&c.tokenFile, "token-file", "", "file with your bearer token (default: CULVERT_TOKEN_FILE, or the profile's credential)")
	f.StringVar(&c.tokenCommand, "token-command", "", "line for the shell that prints your bearer token, in place of --token-file; it must have no secret in it")
	f.StringVar(&c.clientCert, "client-cert", "", "PEM file of your client certificate, in place of a token (default: CULVERT_CLIENT_CERT, or the profile's)")
	f.StringVar(&c.clientKey, "client-key", "", "PEM file of its key")
	completeProfiles(cmd, "profile")
}

// bindInsecure adds the flag for tests on one machine.
func (c *callerFlags) bindInsecure(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.insecure, "insecure-skip-tls-verify", false, "verify nobody, now and whenever the file is used: for tests on your own machine alone")
}

// credential tells whether a flag is a credential.
func (c *callerFlags) credential() bool {
	return c.tokenFile != "" || c.tokenCommand != "" || c.clientCert != "" || c.clientKey != ""
}

// check refuses flags that contradict each other.
func (c *callerFlags) check() error {
	switch {
	case c.profile != "" && c.hub != "":
		return cli.Usagef("--profile: leave it out with --hub, which names another")
	case c.tokenFile != "" && c.tokenCommand != "":
		return cli.Usagef("--token-command: leave it out with --token-file")
	case (c.clientCert != "" || c.clientKey != "") && (c.tokenFile != "" || c.tokenCommand != ""):
		return cli.Usagef("--client-cert: leave it out with --token-file and --token-command")
	case (c.clientCert == "") != (c.clientKey == ""):
		return cli.Usagef("--client-cert, --client-key: each is of no use without the other")
	case c.insecure && c.hubCA != "":
		return cli.Usagef("--insecure-skip-tls-verify: leave it out with --hub-ca, which verifies the hub")
	}
	return nil
}

// resolve returns the hub and the credential that are meant. A flag wins over the
// environment, and that over the profiles. With --hub, a credential of the environment or
// of a profile counts only where it is one for that hub, so that no other hub gets it.
func (c *callerFlags) resolve() (profile.Profile, error) {
	if err := c.check(); err != nil {
		return profile.Profile{}, err
	}
	p, err := c.found()
	if err != nil {
		return profile.Profile{}, err
	}
	if c.hubCA != "" {
		p.HubCA, p.HubCAData, p.InsecureSkipTLSVerify = absolute(c.hubCA), "", false
	}
	if c.insecure {
		p.HubCA, p.HubCAData, p.InsecureSkipTLSVerify = "", "", true
	}
	if c.credential() {
		p.Name = "" // the login is not what counts
		p.Token, p.OIDC = "", nil
		p.TokenFile, p.TokenCommand = absolute(c.tokenFile), c.tokenCommand
		p.CertFile, p.KeyFile = absolute(c.clientCert), absolute(c.clientKey)
	}
	return p, nil
}

func (c *callerFlags) found() (profile.Profile, error) {
	if c.hub != "" {
		base, err := profile.CheckHub(c.hub)
		if err != nil {
			return profile.Profile{}, cli.Usagef("--hub: %w", err)
		}
		return known(base)
	}
	if c.profile == "" {
		if p, ok, err := profile.FromEnvironment(); ok || err != nil {
			return p, cli.Usage(err)
		}
	}
	file, err := profile.Load("")
	if err != nil {
		return profile.Profile{}, err
	}
	return file.Get(c.profile)
}

// known is what the environment and the profiles know of a hub: its CA and a credential.
func known(hub string) (profile.Profile, error) {
	p, ok, err := profile.FromEnvironment()
	if err != nil {
		return p, cli.Usage(err)
	}
	if ok && p.Hub == hub {
		return p, nil
	}
	file, err := profile.Load("")
	if err != nil {
		return profile.Profile{}, err
	}
	if p, err := file.Get(""); err == nil && p.Hub == hub {
		return p, nil
	}
	for _, candidate := range file.Profiles {
		if candidate.Hub == hub {
			return file.Get(candidate.Name)
		}
	}
	if ok { // the environment's credential is another hub's
		return profile.Profile{Hub: hub}, nil
	}
	// One without a hub is for the hub that is named.
	return profile.EnvironmentCredential(hub)
}

// source is where the caller's token comes from; nil for a client certificate.
func source(p profile.Profile, say io.Writer) (credential.Source, error) {
	if p.Credential() == profile.CredentialCommand {
		return credential.Command{Line: p.TokenCommand, Stderr: say}, nil
	}
	return p.Source()
}

// arguments are the flags by which culvert credential gets the same credential.
// Paths are made absolute: kubectl starts it anywhere.
func arguments(p profile.Profile, callsHub bool) []string {
	if p.Name != "" {
		return []string{"--profile", p.Name}
	}
	args := []string{"--hub", p.Hub}
	if callsHub && p.HubCA != "" {
		args = append(args, "--hub-ca", absolute(p.HubCA))
	}
	switch p.Credential() {
	case profile.CredentialCommand:
		args = append(args, "--token-command", p.TokenCommand)
	case profile.CredentialFile:
		args = append(args, "--token-file", absolute(p.TokenFile))
	}
	return args
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// warnInsecure is said of each use that verifies nobody.
func warnInsecure(p profile.Profile, say io.Writer) {
	if p.InsecureSkipTLSVerify {
		fmt.Fprintln(say, "warning: --insecure-skip-tls-verify: nobody proves to be the hub or the cluster, now or whenever the file is used: "+
			"whoever is on the way reads and changes everything, your credentials included; give --hub-ca in its place")
	}
}

// cacheDir is where tokens are kept; empty for a user without a folder, of whom
// nothing is kept.
func cacheDir() string {
	dir, err := credential.DefaultDir()
	if err != nil {
		return ""
	}
	return dir
}

// readSecret reads a token that is piped in, or typed in without being shown.
func readSecret(ctx context.Context, r io.Reader, say io.Writer) (credential.Token, error) {
	const most = 64<<10 + 2
	var text []byte
	var err error
	if file, ok := r.(*os.File); ok && isTerminal(file) {
		fmt.Fprint(say, "Your token: ")
		text, err = readPassword(ctx, file)
		fmt.Fprintln(say)
	} else {
		text, err = io.ReadAll(io.LimitReader(interruptible(ctx, r), most))
	}
	if err != nil {
		return credential.Token{}, err
	}
	return credential.ParseToken(text, time.Now())
}

// pluginEnvironment is what culvert credential needs of the environment to find the same
// profile.
func pluginEnvironment(p profile.Profile) (name, value string, ok bool) {
	if value = os.Getenv(profile.EnvironmentFile); p.Name == "" || value == "" {
		return "", "", false
	}
	return profile.EnvironmentFile, absolute(value), true
}

var errNoToken = errors.New("this needs a bearer token, and your credential is a client certificate")
