// Package clients is the hub's front end for programs that speak the tunnel's own
// frames, as package client does: one connection carries all their sessions.
//
// # Who calls
//
// The call that makes a link has a bearer token, or its connection a client
// certificate. They are judged again for each session, so that one that expired or was
// taken back opens nothing more, whatever its link. Nothing that a frame says counts.
//
// # Targets
//
// A session to an address, or to the TLS of a cluster's API server, is one of raw bytes:
// limits, policy and audit are those of every other front end ([front.Sessions]). One to
// the hub itself carries HTTP, as the TLS of the hub's port would, and is handed to
// whoever serves that: each request has a credential of its own, or is by the
// connection's certificate. Other targets are refused: requests for the Kubernetes API
// and for services need the hub to read them.
package clients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// idleTimeout cuts a session over which nothing goes.
const idleTimeout = 24 * time.Hour

// Config sets up a [Front]. Sessions, Identify and Logger are required.
type Config struct {
	// Sessions opens sessions of raw bytes.
	Sessions front.Sessions
	// Identify says who a client is.
	Identify Identify
	// Observer counts who was authenticated. The zero value observes nothing.
	Observer telemetry.Observer
	// Logger gets one line for each session at info.
	Logger *slog.Logger
}

// Front decides about clients and their sessions. It is safe for concurrent use.
type Front struct {
	cfg Config
	web *carried
}

// New returns a front end; its methods are for [acceptor.ClientsConfig].
func New(cfg Config) (*Front, error) {
	if cfg.Sessions == nil || cfg.Identify == nil || cfg.Logger == nil {
		return nil, errors.New("clients: Sessions, Identify and Logger are required")
	}
	return &Front{cfg: cfg, web: newCarried()}, nil
}

// Web returns the listener of sessions that carry HTTP. Its connections are [*Conn].
func (f *Front) Web() net.Listener { return f.web }

// Admit says who a client is whose link is about to begin. Its network is held to the
// limits before anybody judges a credential, and who is refused is recorded. A link by
// itself holds none of them: its sessions do.
func (f *Front) Admit(ctx context.Context, c *acceptor.Client) (string, error) {
	ctx = answer.WithID(ctx)
	want := &front.Session{Source: c.Addr.String(), Start: time.Now()}
	err := f.cfg.Sessions.Admit(ctx, want)
	if err == nil {
		want.Caller, err = f.identify(ctx, c)
	}
	if err != nil {
		f.cfg.Sessions.Refuse(ctx, want, err)
		return "", err
	}
	want.Hold.Release()
	return want.Caller.User.GetName(), nil
}

func (f *Front) identify(ctx context.Context, c *acceptor.Client) (identity.Caller, error) {
	caller, err := f.cfg.Identify(c.Request(ctx), "")
	f.cfg.Observer.Metrics.Authenticated(string(caller.Method), telemetry.OutcomeOf(err))
	return caller, err
}

// Handle decides about a session that a client wants.
func (f *Front) Handle(ctx context.Context, c *acceptor.Client, in *mux.Incoming) {
	defer f.recovered(in)
	switch target := in.Target(); {
	case target.Kind == wire.TargetHub:
		f.carry(c, in)
	case target.Raw():
		f.join(ctx, c, in)
	default:
		in.Refuse(wire.CodeInvalidTarget, wire.HopHub, "a client opens sessions to addresses, to the TLS of API servers and to the hub, and to nothing else")
	}
}

// join opens a session of raw bytes, and carries them to its end.
func (f *Front) join(ctx context.Context, c *acceptor.Client, in *mux.Incoming) {
	r := c.Request(ctx)
	r.Header.Set(answer.HeaderRequestID, in.RequestID())
	r.Header.Set("Traceparent", in.Trace())
	r = answer.WithRequestID(r)
	_, r = telemetry.Observer{}.Begin(r, nil) // the sender's trace; what is observed is the session
	ctx = r.Context()
	want := &front.Session{Source: c.Addr.String(), Start: time.Now()}
	stream, err := f.open(ctx, c, in, want)
	if err != nil {
		refuse(in, err)
		return
	}
	defer splice.CutIdle(stream, idleTimeout, wire.HopHub)()
	client, err := in.Accept()
	if err != nil { // the client gave up
		stream.Reset(wire.CodeCanceled, wire.HopClient, "the client gave up")
		f.cfg.Logger.Info("session cancelled", "request_id", answer.RequestID(ctx), "cluster", want.Cluster, "target", want.Target.String(), "reason", err)
		return
	}
	result := splice.Join(client, stream, wire.HopLink)
	f.cfg.Logger.Info("session ended", "request_id", answer.RequestID(ctx), "user", want.Caller.User.GetName(), "cluster", want.Cluster, "target", want.Target.String(),
		"received", result.AToB, "sent", result.BToA, "duration", time.Since(want.Start).Round(time.Millisecond), "reason", reason(result.Err))
}

func reason(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}

// open takes a session through its steps.
func (f *Front) open(ctx context.Context, c *acceptor.Client, in *mux.Incoming, want *front.Session) (*mux.Session, error) {
	if err := f.prepare(ctx, c, in, want); err != nil {
		f.cfg.Sessions.Refuse(ctx, want, err)
		return nil, err
	}
	// What has come by now travels on with the open.
	want.First = in.First(mux.DefaultMinWindow)
	return f.cfg.Sessions.Open(ctx, want) // which records what it refuses
}

func (f *Front) prepare(ctx context.Context, c *acceptor.Client, in *mux.Incoming, want *front.Session) error {
	if err := locate(in, want); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "read target", Code: wire.CodeInvalidTarget, Err: err}
	}
	if err := f.cfg.Sessions.Admit(ctx, want); err != nil {
		return err
	}
	caller, err := f.identify(ctx, c)
	if err != nil {
		return err
	}
	want.Caller = caller
	return nil
}

// locate reads where a session leads to, in the one spelling that rules are held
// against.
func locate(in *mux.Incoming, want *front.Session) error {
	if err := route.CheckCluster(in.Cluster()); err != nil {
		return err
	}
	target := in.Target()
	if target.Kind == wire.TargetAddress {
		host, err := route.ParseHost(target.Host)
		if err != nil {
			return err
		}
		target.Host = host
	}
	if err := route.CheckTarget(target); err != nil {
		return errors.Unwrap(err)
	}
	want.Cluster, want.Target = in.Cluster(), target
	return nil
}

// refuse tells the client why there is no session.
func refuse(in *mux.Incoming, err error) {
	f := answer.Fault(wire.HopHub, "open", err)
	message := f.Code.String()
	switch {
	case f.Code.Known() == wire.CodeInternal:
		message = "internal error" // the log has more
	case f.Err != nil:
		message = f.Err.Error()
	}
	in.Refuse(f.Code, f.Hop, message)
}

// recovered turns a panic into a refusal, with its stack in the log.
func (f *Front) recovered(in *mux.Incoming) {
	v := recover()
	if v == nil {
		return
	}
	f.cfg.Observer.Metrics.Panicked("client session")
	f.cfg.Logger.Error("client session panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	in.Refuse(wire.CodeInternal, wire.HopHub, "internal error")
}
