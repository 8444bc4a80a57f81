package connect

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
	"github.com/culvertdev/culvert/internal/wire"
)

// DefaultIdleTimeout is how long a tunnel without a byte is kept.
const DefaultIdleTimeout = 24 * time.Hour

// Config sets up a [Handler]. The functions must be safe for concurrent use.
type Config struct {
	// Sessions opens what is asked for. It is required.
	Sessions front.Sessions
	// Identify says who sent a request: [identity.Chain.Identify]. It gets the
	// credential for the proxy as Authorization, and never a cluster. It is required.
	Identify func(r *http.Request, cluster string) (identity.Caller, error)
	// Routes say which cluster a host is in. Nil: no host is in any.
	Routes *Routes
	// Names is asked before Routes: hosts that mean something of a cluster other than
	// an address in its network. Ports does not bound them. It may be nil.
	Names func(host string, port uint16) (cluster string, target wire.Target, ok bool)
	// Ports are those that routes lead to. The zero value has none.
	Ports policy.Ports
	// Anonymous takes clients without a credential in, as system:anonymous.
	Anonymous bool
	// IdleTimeout cuts a tunnel over which nothing goes. 0 is [DefaultIdleTimeout].
	IdleTimeout time.Duration
	// Observer counts who was authenticated. The zero value observes nothing.
	Observer telemetry.Observer
	// Logger gets one line for each tunnel at info. It is required.
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
			problems = append(problems, errors.New("connect: "+field.name+" is required"))
		}
	}
	if c.IdleTimeout < 0 {
		problems = append(problems, fmt.Errorf("connect: IdleTimeout: %v is negative", c.IdleTimeout))
	}
	return errors.Join(problems...)
}
