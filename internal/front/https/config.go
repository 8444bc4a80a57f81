package https

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Config sets up a [Handler]. The functions must be safe for concurrent use.
type Config struct {
	// Dial opens a session to target in cluster. It is required, and must end
	// by itself in bounded time: its context has the values of the request that
	// caused it (see [answer.RequestID]), but not its end, since another request
	// may use the session. It fails with a [*fault.Error]. The connection should
	// have CloseWrite, and Agent() string for audit lines and the log: the name of
	// the agent that has the session, which may be known after the first Write only.
	// The handler owns it.
	Dial func(ctx context.Context, cluster string, target wire.Target) (net.Conn, error)
	// Choose names the agent of a cluster that a request should go to, before a
	// session for it is taken from the pool or dialled: the pool keeps sessions of each
	// agent apart. Its done is called when the request, its stream included, is over.
	// Dial is told the agent by [ChosenAgent]. It fails with a [*fault.Error]. Nil: all
	// sessions to a target of a cluster are alike.
	Choose func(ctx context.Context, cluster string, target wire.Target) (agent uint64, done func(), err error)
	// Identify says who sent a request: [identity.Chain.Identify]. It is required.
	Identify func(r *http.Request, cluster string) (identity.Caller, error)
	// Map says who a user is on a cluster: [identity.Mapper.Map]. It is required.
	Map func(user.Info) (identity.Impersonation, error)
	// Policy decides about every request to a cluster. It is required.
	Policy policy.Authorizer
	// Labels returns those of a cluster that the hub vouches for, which the caller
	// does not change. An error refuses the request. Nil: no cluster has any.
	Labels func(cluster string) (map[string]string, error)
	// Audit records every request but those to the hub's own paths that are for
	// everybody. Nil: nothing does.
	Audit *audit.Log
	// Limits bound what networks, callers and clusters can ask for. Nil: nothing is
	// bounded.
	Limits *limit.Limits
	// Observer is told about requests. The zero value observes nothing.
	Observer telemetry.Observer
	// HeaderBytes bounds the head of a request; 0 is [MaxHeaderBytes].
	HeaderBytes int
	// Logger gets one line a request at info. It is required.
	Logger *slog.Logger
	// HostOf returns the cluster's host name that a request is for, where it is for
	// one: its path then is the target's. An error refuses the request. Nil: clusters
	// have paths alone.
	HostOf func(r *http.Request) (route.Host, bool, error)
	// CA returns what /-/ca.crt answers, PEM: the CAs of the hub's certificate as
	// they are now. Without it, and where it returns nothing, the path is not found.
	CA func() []byte
	// Ready says whether the hub can serve, for /-/readyz. Its error is shown to
	// anybody who asks verbosely. Without it the hub is always ready.
	Ready func() error
	// Health returns the state of certificates and files, which /-/readyz?verbose
	// shows to anybody. What it warns of makes the hub not unready. May be nil.
	Health func() []telemetry.Health
	// Admin serves the paths under /-/v1/ to callers that were authenticated, and
	// decides which of them may. Without it those paths are not found.
	Admin func(w http.ResponseWriter, r *http.Request, caller user.Info) error
	// Kubeconfig makes the kubeconfig of a cluster. What it fails with is the answer.
	// It ends with its context. Without it nobody gets one.
	Kubeconfig func(ctx context.Context, ask KubeconfigRequest) (Kubeconfig, error)
	// Clusters returns the names of all clusters that are known, of which a caller is
	// shown those that the policy lets them reach. It is required with Kubeconfig.
	Clusters func() ([]string, error)
	// Self is what callers ask about themselves. Nil: those paths are not found.
	Self *Self
}

// Validate names every required field that is missing.
func (c *Config) Validate() error {
	var problems []error
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"Dial", c.Dial == nil},
		{"Identify", c.Identify == nil},
		{"Map", c.Map == nil},
		{"Policy", c.Policy == nil},
		{"Logger", c.Logger == nil},
		{"Clusters", c.Kubeconfig != nil && c.Clusters == nil},
	} {
		if field.missing {
			problems = append(problems, errors.New("https: "+field.name+" is required"))
		}
	}
	if c.HeaderBytes < 0 {
		problems = append(problems, fmt.Errorf("https: HeaderBytes: %d is negative", c.HeaderBytes))
	}
	return errors.Join(problems...)
}
