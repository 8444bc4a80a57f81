package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/profile"
)

// DefaultPatience is Config.Patience when that is zero.
const DefaultPatience = 10 * time.Second

// Config says which hub, and who calls it. The zero value is what the environment says
// or, where CULVERT_HUB is not set, the profile that culvert login has made. It holds
// credentials and is never logged: its String is redacted.
type Config struct {
	// Hub is the hub's URL, https://host[:port] and nothing more. Where it is set
	// nothing comes from the environment or a profile.
	Hub string
	// Profile names a profile of the CLI's file in place of Hub and of what follows,
	// up to Proxy, which without Hub is an error: it would count for nothing. But
	// TokenSource is the credential of a hub that comes from elsewhere without one, too.
	Profile string

	// HubCA is a PEM file of the CAs that the hub's certificate comes from, and
	// HubCAData their PEM. Default: the system's.
	HubCA     string
	HubCAData []byte
	// ServerName is the name in the hub's certificate where it is not the host of Hub.
	ServerName string
	// InsecureSkipVerify verifies nobody: for tests on one machine alone.
	InsecureSkipVerify bool

	// One of these is the credential, or TokenSource: a bearer token, a file with one
	// that is read again as it changes, a line for the shell that prints one, or the
	// PEM files of a client certificate.
	Token             string
	TokenFile         string
	TokenCommand      string
	CertFile, KeyFile string
	// TokenSource gives a bearer token when one is needed, and until when it is good;
	// the zero time is for one whose end is not known, which is asked for again after a
	// minute. It is called by one goroutine at a time, ahead of the token's end, and again
	// when the hub has refused the token; ctx ends with the client, or after three minutes.
	TokenSource func(ctx context.Context) (token string, expires time.Time, err error)

	// Proxy leads to the hub. Default: what HTTPS_PROXY and NO_PROXY say.
	Proxy Proxy

	// Patience is how long a call waits for a hub that cannot be reached, or is lost,
	// where its context allows that long. Default 10 s. Negative: a call fails with the
	// first attempt.
	Patience time.Duration
	// UserAgent is what audit lines and the hub's log call the program. Default: the
	// name of the executable.
	UserAgent string
	// Logger gets a line when the connection is lost and one when it is back. Default
	// [slog.Default].
	Logger *slog.Logger
}

// Proxy is an HTTP proxy on the way to the hub.
type Proxy = outbound.Config

// String is for people; credentials are not shown.
func (c Config) String() string { return fmt.Sprintf("{hub:%s profile:%s}", c.Hub, c.Profile) }

// GoString implements [fmt.GoStringer]: credentials are not shown.
func (c Config) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer]: credentials are not shown.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// settings are a Config after everything was looked up.
type settings struct {
	base    string // https://host[:port]
	address string // host:port
	server  string // name in the hub's certificate, "" for the host
	roots   func() *x509.CertPool
	skip    bool
	pair    *pki.KeyPair // nil without a client certificate
	tokens  *tokens      // nil with one
	way     *outbound.Dialer
	rest    Config // the fields after the credential
	from    profile.Profile
}

// resolve looks up what cfg leaves open.
func (c Config) resolve() (*settings, error) {
	p, err := c.profile()
	if err != nil {
		return nil, err
	}
	base, err := profile.CheckHub(p.Hub)
	if err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	s := &settings{base: base, server: p.ServerName, skip: p.InsecureSkipTLSVerify, rest: c, from: p}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	s.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
	if s.rest.Patience == 0 {
		s.rest.Patience = DefaultPatience
	}
	if s.rest.Logger == nil {
		s.rest.Logger = slog.Default()
	}
	if s.rest.UserAgent == "" {
		s.rest.UserAgent = filepath.Base(os.Args[0])
	}
	if err := s.trust(p); err != nil {
		return nil, err
	}
	if err := s.credential(c, p); err != nil {
		return nil, err
	}
	s.way, err = outbound.New(p.Proxy, s.rest.Logger)
	return s, err
}

// beside tells whether there is something that is for Hub alone.
func (c Config) beside() bool {
	for _, text := range []string{c.HubCA, c.ServerName, c.Token, c.TokenFile, c.TokenCommand, c.CertFile, c.KeyFile} {
		if text != "" {
			return true
		}
	}
	return len(c.HubCAData) > 0 || c.InsecureSkipVerify || !reflect.ValueOf(c.Proxy).IsZero()
}

// profile is what says which hub: the Config itself, the environment or the CLI's file.
func (c Config) profile() (profile.Profile, error) {
	switch {
	case c.Hub != "" && c.Profile != "":
		return profile.Profile{}, errors.New("hub, profile: give one of them")
	case c.Hub != "":
		p := profile.Profile{
			Hub: c.Hub, HubCA: c.HubCA, HubCAData: string(c.HubCAData), ServerName: c.ServerName, InsecureSkipTLSVerify: c.InsecureSkipVerify,
			Proxy: c.Proxy, Token: c.Token, TokenFile: c.TokenFile, TokenCommand: c.TokenCommand, CertFile: c.CertFile, KeyFile: c.KeyFile,
		}
		return p, p.CheckCredential()
	case c.beside():
		return profile.Profile{}, errors.New("hub: required beside a credential, a CA, a serverName, insecureSkipVerify or a proxy: " +
			"a profile and the environment have their own")
	case c.Profile == "":
		p, ok, err := profile.FromEnvironment()
		if ok || err != nil {
			return p, err
		}
	}
	path, err := profile.DefaultPath()
	if err != nil {
		return profile.Profile{}, err
	}
	file, err := profile.Load(path)
	if err != nil {
		return profile.Profile{}, err
	}
	p, err := file.Get(c.Profile)
	if err != nil {
		return profile.Profile{}, &Error{Op: "find the hub", Code: Unauthenticated, Hop: HopClient, Err: err}
	}
	return p, nil
}

// trust finds what verifies the hub.
func (s *settings) trust(p profile.Profile) error {
	switch {
	case p.HubCA != "" && p.HubCAData != "":
		return errors.New("hubCA, hubCAData: give one of them")
	case p.HubCA != "":
		bundle, err := pki.LoadBundle(p.HubCA, pki.WithLogger(s.rest.Logger), pki.WithName("hub CA"))
		if err != nil {
			return fmt.Errorf("hubCA: %w", err)
		}
		s.roots = bundle.Pool
	case p.HubCAData != "":
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(p.HubCAData)) {
			return errors.New("hubCAData: no certificate in PEM")
		}
		s.roots = func() *x509.CertPool { return pool }
	default:
		s.roots = func() *x509.CertPool { return nil } // the system's
	}
	return nil
}

// credential finds what says who calls.
func (s *settings) credential(c Config, p profile.Profile) error {
	if c.TokenSource != nil {
		if p.Credential() != profile.CredentialNone {
			return errors.New("tokenSource: leave it out beside another credential")
		}
		s.tokens = newTokens(called{c.TokenSource}, credential.Cache{})
		return nil
	}
	source, err := p.Source()
	if err != nil {
		return err
	}
	if source != nil {
		cache := credential.Cache{Scope: p.Hub}
		if p.Name != "" { // programs of the same user share what is costly to get
			if dir, err := credential.DefaultDir(); err == nil {
				cache.Dir = dir
			}
		}
		s.tokens = newTokens(source, cache)
		return nil
	}
	s.pair, err = pki.LoadKeyPair(p.CertFile, p.KeyFile, pki.WithLogger(s.rest.Logger), pki.WithName("client certificate"))
	if err != nil {
		return fmt.Errorf("certFile, keyFile: %w", err)
	}
	return nil
}

// tls is the configuration of one connection.
func (s *settings) tls() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: s.server, RootCAs: s.roots(), InsecureSkipVerify: s.skip} //nolint:gosec // where the caller asks for it
	if s.pair != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.pair.GetCertificate(nil) }
	}
	return cfg
}
