package websocket

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/telemetry"
)

const (
	// DefaultIdleTimeout is how long a session without a byte is kept. Pings do not
	// count.
	DefaultIdleTimeout = 24 * time.Hour
	// DefaultPing is how often a client is asked whether it is there.
	DefaultPing = 30 * time.Second
	// MaxMessage bounds a message of a client, in bytes. It protects nothing but the
	// time that one message may take, since no message is held as a whole.
	MaxMessage = 16 << 20
)

// Config sets up a [Handler].
type Config struct {
	// Sessions opens what is asked for. It is required.
	Sessions front.Sessions
	// Identify says who sent a request: [identity.Chain.Identify], for no cluster. It
	// is required.
	Identify func(r *http.Request, cluster string) (identity.Caller, error)
	// Ports are those that may be reached. The zero value has none.
	Ports policy.Ports
	// IdleTimeout cuts a session over which nothing goes. 0 is [DefaultIdleTimeout].
	IdleTimeout time.Duration
	// Ping is the time between two pings; a client that has sent nothing, not even the
	// answer, for three of them is gone. 0 is [DefaultPing].
	Ping time.Duration
	// Observer counts who was authenticated. The zero value observes nothing.
	Observer telemetry.Observer
	// Logger gets one line for each session at info. It is required.
	Logger *slog.Logger
}

// Validate names every field that is missing or wrong.
func (c *Config) Validate() error {
	var problems []error
	for _, field := range []struct {
		name    string
		missing bool
	}{{"Sessions", c.Sessions == nil}, {"Identify", c.Identify == nil}, {"Logger", c.Logger == nil}} {
		if field.missing {
			problems = append(problems, errors.New("websocket: "+field.name+" is required"))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"IdleTimeout", c.IdleTimeout}, {"Ping", c.Ping}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("websocket: %s: %v is negative", d.name, d.value))
		}
	}
	return errors.Join(problems...)
}
