package client

import (
	"context"
	"log/slog"
	"time"

	"github.com/culvertdev/culvert/internal/outbound"
)

// DefaultPatience is Config.Patience when that is zero.
const DefaultPatience = 10 * time.Second

// Config says which hub, and who calls it. The zero value is what the environment says
// or, where CULVERT_HUB is not set, the profile that culvert login has made; see
// [FromEnvironment]. It holds credentials and is never logged: its String is redacted.
type Config struct {
	// Hub is the hub's URL, https://host[:port] and nothing more. Where it is set
	// nothing comes from the environment or a profile.
	Hub string
	// Profile names a profile of the CLI's file in place of Hub and of what follows,
	// up to Proxy.
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
	// minute. It is called from several goroutines.
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
