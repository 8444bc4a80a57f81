package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/credential/oidc"
	"github.com/culvertdev/culvert/internal/profile"
)

// loginOptions are the flags of culvert login.
type loginOptions struct {
	caller     callerFlags
	pin        string
	serverName string
	tokenStdin bool

	oidc              oidc.Config
	device, noBrowser bool
	port              int
}

func loginCommand() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login https://HUB[:PORT]",
		Short: "Log in at a hub, and keep it as a profile for all commands",
		Long: `Log in at a hub, and keep it as a profile: the other commands, the Go client and the
kubeconfigs that culvert kubeconfig makes then need no flag that says which hub, and who
you are. It ends by asking the hub who you are.

Who the hub is: --hub-ca has its CA, or --hub-ca-fingerprint the SHA-256 of it, which the
hub says when it starts. Without them it is the system that verifies the hub, and where
it cannot, the fingerprint is shown and you are asked; without a terminal that is refused.

Who you are, one of these:
  --token-file       a file with a bearer token, read anew each time
  --token-command    a line for the shell that prints one
  --token-stdin      a bearer token on standard input, kept in a file of mode 0600
  --client-cert      a client certificate, with --client-key
  --oidc-issuer      your company's login, in a browser: with --device in one on another
                     machine; it is renewed by itself as long as the provider allows
Another login at the same hub, for example of one that has expired, needs none of them
again.`,
		Example: `  culvert login https://hub.example.com:8443 --token-file me.token
  culvert login https://hub.example.com:8443 --hub-ca-fingerprint 1F:C3:… --oidc-issuer https://login.example.com --oidc-client-id culvert
  culvert login https://hub.example.com:8443 --hub-ca ca.crt --oidc-issuer https://login.example.com --oidc-client-id culvert --device
  culvert login https://hub.example.com:8443`,
		Args: oneName("hub's URL, https://host[:port]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.caller.hub = args[0]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.caller.profile, "profile", "", "name of the profile (default: the one of this hub, or the hub's host)")
	f.StringVar(&o.caller.hubCA, "hub-ca", "", "PEM file of the CAs that verify the hub (default: the system's)")
	f.StringVar(&o.pin, "hub-ca-fingerprint", "", "SHA-256 of the hub's CA, hexadecimal, in place of --hub-ca")
	f.StringVar(&o.serverName, "server-name", "", "name in the hub's certificate (default: the host of its URL)")
	f.StringVar(&o.caller.tokenFile, "token-file", "", "file with your bearer token")
	f.StringVar(&o.caller.tokenCommand, "token-command", "", "line for the shell that prints your bearer token; it must have no secret in it")
	f.BoolVar(&o.tokenStdin, "token-stdin", false, "read your bearer token from standard input and keep it")
	f.StringVar(&o.caller.clientCert, "client-cert", "", "PEM file of your client certificate")
	f.StringVar(&o.caller.clientKey, "client-key", "", "PEM file of its key")
	f.StringVar(&o.oidc.Issuer, "oidc-issuer", "", "URL of the OpenID Connect provider")
	f.StringVar(&o.oidc.ClientID, "oidc-client-id", "", "Culvert's client id there, of a public client; the hub must accept it as the audience")
	f.StringVar(&o.oidc.ClientSecretFile, "oidc-client-secret-file", "", "file with the client's secret, for providers that want one (default none)")
	f.StringSliceVar(&o.oidc.Scopes, "oidc-scopes", nil, "scopes beside openid and offline_access (default email,profile)")
	f.StringVar(&o.oidc.CA, "oidc-ca", "", "PEM file of the CAs that verify the provider (default: the system's)")
	f.BoolVar(&o.device, "device", false, "log in with a browser on another machine, by a code that is typed in there")
	f.BoolVar(&o.noBrowser, "no-browser", false, "print the URL and start no browser")
	f.IntVar(&o.port, "oidc-port", 0, "port at 127.0.0.1 that the browser comes back to, for providers that want to know it (default: any)")
	completeProfiles(cmd, "profile")
	return cmd
}

// check names what contradicts itself.
func (o *loginOptions) check() error {
	// --profile names what is made here.
	named := o.caller
	named.profile = ""
	if err := named.check(); err != nil {
		return err
	}
	kinds := 0
	for _, set := range []bool{o.caller.tokenFile != "", o.caller.tokenCommand != "", o.tokenStdin, o.caller.clientCert != "", o.oidc.Issuer != "" || o.oidc.ClientID != ""} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return cli.Usagef("--token-file, --token-command, --token-stdin, --client-cert, --oidc-issuer: give one of them")
	case (o.oidc.Issuer == "") != (o.oidc.ClientID == ""):
		return cli.Usagef("--oidc-issuer, --oidc-client-id: each is of no use without the other")
	case o.pin != "" && o.caller.hubCA != "":
		return cli.Usagef("--hub-ca-fingerprint: leave it out with --hub-ca")
	case o.port < 0 || o.port > 65535:
		return cli.Usagef("--oidc-port: want a port")
	}
	return nil
}

// secrets are what a login leaves beside the profile.
type secrets struct {
	token string
	login *oidc.Login
}

func (o *loginOptions) run(cmd *cobra.Command) error {
	ctx, say := cmd.Context(), cmd.ErrOrStderr()
	if err := o.check(); err != nil {
		return err
	}
	p, err := o.profile()
	if err != nil {
		return err
	}
	if err := o.trust(ctx, &p, cmd.InOrStdin(), say); err != nil {
		return err
	}
	kept, err := o.authenticate(ctx, &p, cmd.InOrStdin(), say)
	if err != nil {
		return err
	}
	user, err := o.whoIs(ctx, p, kept, say)
	if err != nil {
		return err
	}
	if err := keep(ctx, p, kept); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "You are %s at %s. The profile %s is the current one.\n", describeUser(user), p.Hub, p.Name)
	return nil
}

// profile is the one that there is for the hub, or a new one, with the flags' settings.
func (o *loginOptions) profile() (profile.Profile, error) {
	base, err := profile.CheckHub(o.caller.hub)
	if err != nil {
		return profile.Profile{}, cli.Usagef("the hub's URL: %w", err)
	}
	if o.caller.profile != "" {
		if err := profile.CheckName(o.caller.profile); err != nil {
			return profile.Profile{}, cli.Usagef("--profile: %w", err)
		}
	}
	file, err := profile.Load("")
	if err != nil {
		return profile.Profile{}, err
	}
	p := profile.Profile{Name: o.caller.profile, Hub: base}
	taken := map[string]bool{}
	for _, there := range file.Profiles {
		taken[there.Name] = true
		// A name says which one is meant; without it the current one goes before others.
		meant := there.Name == o.caller.profile || o.caller.profile == "" && (p.Name == "" || there.Name == file.Current)
		if there.Hub != base || !meant {
			continue
		}
		if p, err = file.Get(there.Name); err != nil {
			return p, err
		}
	}
	if p.Name == "" {
		u, err := url.Parse(base)
		if err != nil {
			return p, err
		}
		if p.Name = u.Hostname(); profile.CheckName(p.Name) != nil {
			p.Name = "hub" // an IPv6 address
		}
		if taken[p.Name] && u.Port() != "" {
			p.Name += "-" + u.Port()
		}
	}
	if o.serverName != "" {
		p.ServerName = o.serverName
	}
	return p, nil
}

// authenticate gets the credential that the flags, or the profile so far, say.
func (o *loginOptions) authenticate(ctx context.Context, p *profile.Profile, in io.Reader, say io.Writer) (secrets, error) {
	if o.caller.credential() || o.tokenStdin || o.oidc.Issuer != "" {
		p.TokenFile, p.TokenCommand, p.OIDC = absolute(o.caller.tokenFile), o.caller.tokenCommand, nil
		p.CertFile, p.KeyFile = absolute(o.caller.clientCert), absolute(o.caller.clientKey)
	}
	switch {
	case o.tokenStdin:
		token, err := readSecret(ctx, in, say)
		if err != nil {
			return secrets{}, cli.Usagef("--token-stdin: %w", err)
		}
		dir, err := profileDir()
		p.TokenFile = profile.TokenPath(dir, p.Name)
		return secrets{token: token.Value}, err
	case o.oidc.Issuer != "":
		own := o.oidc
		own.CA, own.ClientSecretFile = absolute(own.CA), absolute(own.ClientSecretFile)
		p.OIDC = &own
	case p.Credential() == profile.CredentialNone:
		return secrets{}, cli.Usagef("--token-file, --token-command, --token-stdin, --client-cert, --oidc-issuer: say who you are")
	case p.OIDC == nil:
		return secrets{}, nil // the source is asked by whoIs
	}
	login, err := o.oidcLogin(ctx, *p.OIDC, say)
	return secrets{login: &login}, err
}

// keep writes the profile, and its secrets first.
func keep(ctx context.Context, p profile.Profile, kept secrets) error {
	return profile.Update(ctx, "", func(f *profile.File) error {
		dir := filepath.Dir(f.Path())
		if kept.login != nil {
			if err := kept.login.Save(profile.LoginPath(dir, p.Name)); err != nil {
				return fmt.Errorf("keep the login: %w", err)
			}
		}
		if kept.token != "" {
			if err := saveToken(profile.TokenPath(dir, p.Name), kept.token); err != nil {
				return fmt.Errorf("keep the token: %w", err)
			}
		}
		f.Set(p)
		f.Current = p.Name
		return stale(dir, p)
	})
}

// stale removes the secrets of an earlier login that is none any more.
func stale(dir string, p profile.Profile) error {
	var paths []string
	if p.OIDC == nil {
		paths = append(paths, profile.LoginPath(dir, p.Name))
	}
	if own := profile.TokenPath(dir, p.Name); p.TokenFile != own {
		paths = append(paths, own)
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func profileDir() (string, error) {
	path, err := profile.DefaultPath()
	return filepath.Dir(path), err
}

// source is for what is not kept yet; nil without secrets.
func (s secrets) source() credential.Source {
	switch {
	case s.login != nil:
		return credential.Static{Value: s.login.IDToken}
	case s.token != "":
		return credential.Static{Value: s.token}
	}
	return nil
}
