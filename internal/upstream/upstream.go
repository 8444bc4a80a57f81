package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// idleSession is how long a session from the hub may be without a request.
	// It is well above the hub's 90 s, so that the hub is the one that closes.
	idleSession = 5 * time.Minute
	// maxRequestHeader bounds the head of a request, in bytes: what the hub
	// accepts and what it adds.
	maxRequestHeader = 512 << 10
)

// Upstream is the agent's side of all sessions. It is safe for concurrent use.
type Upstream struct {
	cfg           Config
	policy        policy.Authorizer
	impersonation Impersonation
	dialer        *dialer
	kubernetes    *kubernetes
	services      *services
	proxy         *relay.Proxy
	server        *http.Server
	sessions      *listener
	ended         chan error
	// unwatch ends what looks after the endpoints of the API server, and watched
	// tells that it has ended.
	unwatch context.CancelFunc
	watched chan struct{}
}

// New returns an Upstream, which the caller closes with [Upstream.Close]. The
// targets are not contacted.
func New(cfg Config) (*Upstream, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u := &Upstream{cfg: cfg, policy: cfg.Policy, impersonation: cfg.Impersonation.clone(), sessions: newListener(), ended: make(chan error, 1)}
	if u.policy == nil {
		standard, err := policy.Compile(policy.Document{APIVersion: policy.APIVersion, Kind: policy.Kind}, policy.Options{Agent: true})
		if err != nil {
			return nil, fmt.Errorf("upstream: %w", err)
		}
		u.policy = standard
	}
	u.dialer = newDialer(cfg.DNSServer, cmp.Or(cfg.DialTimeout, DefaultDialTimeout))
	roots, err := newRoots(cfg.ServiceCA, cfg.Kubernetes)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u.services = newServices(u.dialer, strings.Trim(cmp.Or(cfg.Zone, DefaultZone), "."), roots, cfg)
	if cfg.Kubernetes != nil {
		if u.kubernetes, err = newKubernetes(cfg, u.dialer); err != nil {
			return nil, fmt.Errorf("upstream: %w", err)
		}
		if u.Unverified() {
			cfg.Logger.Warn(UnverifiedWarning)
		}
	}
	u.proxy = relay.New(relay.Config{Explain: explain, Response: dropForged, Far: wire.HopTarget, Logger: cfg.Logger})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	u.server = &http.Server{
		Handler:           http.HandlerFunc(u.serve),
		Protocols:         protocols,
		ReadHeaderTimeout: idleSession,
		IdleTimeout:       idleSession,
		MaxHeaderBytes:    maxRequestHeader,
		ConnContext:       sessionContext,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	go u.acceptSessions()
	watch, unwatch := context.WithCancel(context.Background())
	u.unwatch, u.watched = unwatch, make(chan struct{})
	go u.watchEndpoints(watch)
	return u, nil
}

// watchEndpoints keeps known which endpoints of the API server work, until Close.
func (u *Upstream) watchEndpoints(ctx context.Context) {
	defer close(u.watched)
	if u.kubernetes != nil {
		u.kubernetes.set.Run(ctx)
	}
}

// Endpoints returns the state of the API server's endpoints, and whether there is
// an API server at all.
func (u *Upstream) Endpoints() (balance.State, bool) {
	if u.kubernetes == nil {
		return balance.State{}, false
	}
	return u.kubernetes.set.State(), true
}

// dropForged keeps a target from speaking in Culvert's name.
func dropForged(h http.Header) { h.Del(answer.HeaderError) }

// UnverifiedWarning says what Unverified means.
const UnverifiedWarning = "the certificate of the Kubernetes API server is not verified, as the kubeconfig says (insecure-skip-tls-verify): " +
	"whoever is between may read and change everything; give the server's CA instead"

// Unverified tells that nobody verifies the API server, as its configuration asks.
func (u *Upstream) Unverified() bool { return u.kubernetes != nil && u.kubernetes.unverified }

// Serve speaks HTTP/1.1 with the hub over conn, a session to target, which is
// the Kubernetes API or a service. It takes conn over, which should have
// CloseWrite, and returns at once; conn is closed when the hub closes it, when
// it is idle for five minutes, or by Close.
func (u *Upstream) Serve(conn net.Conn, target wire.Target) {
	u.sessions.hand(&session{Conn: conn, target: target})
}

// acceptSessions runs the server until Close.
func (u *Upstream) acceptSessions() { u.ended <- u.server.Serve(u.sessions) }

// Close lets requests under way finish until ctx ends, then ends the rest and
// all upgraded streams. Sessions that come later are closed. It must be called
// once.
func (u *Upstream) Close(ctx context.Context) error {
	// Close also after an orderly shutdown: a session may just have come in.
	err := errors.Join(u.server.Shutdown(ctx), u.server.Close())
	u.proxy.Close()
	if serveErr := <-u.ended; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	u.unwatch()
	<-u.watched
	u.services.close()
	if u.kubernetes != nil {
		u.kubernetes.close()
	}
	return err
}
