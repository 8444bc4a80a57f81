package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Caller is on whose behalf a program that embeds a hub opens a session: a user of
// the hub, whom the program has authenticated.
type Caller struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// byProgram is the authentication in audit lines of what the embedding program
// does, by itself or for a caller whom it answers for.
const byProgram = "program"

// dial returns a session for requests of the front end, which the first bytes of a
// request open.
func (s *Server) dial(ctx context.Context, cluster string, target wire.Target) (net.Conn, error) {
	id := answer.RequestID(ctx)
	ctx, opening := s.observer.StartOpen(ctx, telemetry.OpenStart{Cluster: cluster, Target: target, RequestID: id})
	request := mux.Request{Target: target, RequestID: id, Trace: telemetry.TraceParent(ctx)}
	conn, err := s.registry.Cold(ctx, cluster, request, DefaultOpenTimeout, opening.End)
	if err != nil {
		opening.End(err)
		return nil, err
	}
	return conn, nil
}

// open opens a session, for as long as DefaultOpenTimeout.
func (s *Server) open(ctx context.Context, cluster string, target wire.Target) (*mux.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultOpenTimeout)
	defer cancel()
	id := answer.RequestID(ctx)
	ctx, opening := s.observer.StartOpen(ctx, telemetry.OpenStart{Cluster: cluster, Target: target, RequestID: id})
	session, err := s.registry.Open(ctx, cluster, mux.Request{Target: target, RequestID: id, Trace: telemetry.TraceParent(ctx)})
	opening.End(err)
	return session, err
}

// DialContext opens a raw TCP session from the named cluster's agent to address,
// which is host:port and resolved at the agent. The network is "tcp", "tcp4" or
// "tcp6".
//
// It is the privilege of the program that embeds the hub, as which it acts: the
// hub's policy and limits are for callers and are not asked, and the agent's policy
// decides alone. For a caller use [Server.DialAs]. Audit lines name the program as
// such. The returned connection has CloseWrite and CloseRead.
func (s *Server) DialContext(ctx context.Context, cluster, network, address string) (net.Conn, error) {
	target, err := tcpTarget(cluster, network, address)
	if err != nil {
		return nil, err
	}
	return s.openRaw(ctx, &rawSession{s: s, cluster: cluster, target: target})
}

// DialAs is [Server.DialContext] on behalf of a caller: the hub's policy has to
// allow the address to them, and their limits hold. A refusal is told as such, and
// names the rule that denied or that would allow it.
func (s *Server) DialAs(ctx context.Context, caller Caller, cluster, network, address string) (net.Conn, error) {
	target, err := tcpTarget(cluster, network, address)
	if err != nil {
		return nil, err
	}
	if caller.Name == "" {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeUnauthenticated, Cluster: cluster, Target: target.String(),
			Err: errors.New("the caller has no name: DialContext is for the program itself")}
	}
	return s.openRaw(ctx, &rawSession{s: s, cluster: cluster, target: target, caller: &user.DefaultInfo{
		Name: caller.Name, UID: caller.UID, Groups: caller.Groups, Extra: caller.Extra,
	}})
}

// Service names a service of a cluster. Port is a number, a name, or empty for the
// service's own; Scheme is "http" or "https", empty for "https".
type Service struct{ Namespace, Name, Port, Scheme string }

// DialService opens a session to a service, by which the agent takes requests in
// HTTP/1.1, one after the other, and sends them on as the scheme says. It is the
// privilege of the embedding program, as [Server.DialContext] is.
func (s *Server) DialService(ctx context.Context, cluster string, service Service) (net.Conn, error) {
	target := wire.Service(service.Namespace, service.Name, service.Port, cmp.Or(service.Scheme, "https"))
	if err := route.CheckTarget(target); err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeInvalidTarget, Cluster: cluster, Err: errors.Unwrap(err)}
	}
	return s.openRaw(ctx, &rawSession{s: s, cluster: cluster, target: target})
}

func tcpTarget(cluster, network, address string) (wire.Target, error) {
	invalid := func(err error) error {
		return &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeInvalidTarget, Cluster: cluster, Target: address, Err: err}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return wire.Target{}, invalid(fmt.Errorf("network %q where tcp is wanted", network))
	}
	// In the one spelling that rules are held against.
	target, err := route.ParseAddress(address)
	if err != nil {
		return wire.Target{}, invalid(err)
	}
	return target, nil
}

// rawSession is a session of raw bytes, from before it is opened to its end.
type rawSession struct {
	s       *Server
	cluster string
	target  wire.Target
	caller  user.Info // nil for the program itself

	start    time.Time
	decision policy.Decision
	decided  bool
	hold     limit.Hold
	audit    *audit.Session
	seen     *telemetry.Session
	stream   *mux.Session
}

// openRaw decides about a session and opens it. What became of it is recorded in
// any case.
func (s *Server) openRaw(ctx context.Context, r *rawSession) (net.Conn, error) {
	r.start = time.Now()
	ctx = answer.WithID(ctx)
	if err := s.audit.Admit(ctx); err != nil {
		return nil, err
	}
	if err := r.admit(ctx); err != nil {
		r.refused(ctx, err)
		return nil, err
	}
	seen := telemetry.SessionStart{
		OpenStart: telemetry.OpenStart{Cluster: r.cluster, Target: r.target, RequestID: answer.RequestID(ctx)},
	}
	if r.caller != nil {
		seen.User = r.caller.GetName()
	}
	ctx, r.seen = s.observer.StartSession(ctx, seen)
	stream, err := s.open(ctx, r.cluster, r.target)
	if err != nil {
		r.seen.End(telemetry.SessionEnd{Err: err})
		r.refused(ctx, err)
		return nil, err
	}
	r.stream = stream
	if s.audit != nil {
		e := r.event(ctx)
		r.audit = s.audit.Begin(&e, r.progress)
	}
	s.raw.Add(1)
	stream.AfterEnd(r.ended)
	return stream, nil
}

// admit holds a caller to the limits and the policy.
func (r *rawSession) admit(ctx context.Context) error {
	if r.caller == nil {
		return nil
	}
	s := r.s
	for _, bound := range []struct {
		scope limit.Scope
		key   string
	}{{limit.User, r.caller.GetName()}, {limit.Cluster, r.cluster}} {
		if err := s.limits.Admit(&r.hold, bound.scope, bound.key, limit.Session); err != nil {
			s.observer.Metrics.Limited(bound.scope.String())
			return err
		}
	}
	labels, err := s.labels(r.cluster)
	if err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeUnavailable, Cluster: r.cluster, Err: err}
	}
	ask := policy.Request{User: r.caller, Cluster: policy.Cluster{Name: r.cluster, Labels: labels}}
	if err := ask.SetTarget(r.target); err != nil {
		return err
	}
	decision, err := s.policy.Authorize(ctx, ask)
	if err != nil {
		s.observer.Metrics.Decided(telemetry.Failed)
		return err
	}
	r.decision, r.decided = decision, true
	if !decision.Allowed {
		s.observer.Metrics.Decided(telemetry.Refused)
		return https.Refused(r.caller, r.cluster, r.target, decision)
	}
	s.observer.Metrics.Decided(telemetry.Allowed)
	return nil
}

// event is what is known of the session by now.
func (r *rawSession) event(ctx context.Context) audit.Event {
	e := audit.Event{
		Start: r.start, RequestID: answer.RequestID(ctx), TraceID: telemetry.TraceID(ctx),
		Authentication: byProgram, Cluster: r.cluster, Target: r.target.String(), Verb: "connect",
	}
	if u := r.caller; u != nil {
		e.User = audit.Identity{Name: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	}
	if r.decided {
		e.Verdict, e.Rule, e.Reason = audit.Deny, r.decision.Rule, r.decision.Reason
		if r.decision.Allowed {
			e.Verdict = audit.Allow
		}
	}
	return e
}

// refused records what did not become a session.
func (r *rawSession) refused(ctx context.Context, err error) {
	r.hold.Release()
	e := r.event(ctx)
	e.Stage = audit.StageSessionEnd
	failed(&e, err)
	r.s.audit.Record(&e)
	r.s.log.Info("session refused", "request_id", e.RequestID, "cluster", r.cluster, "user", e.User.Name, "target", e.Target, "code", e.Code, "error", err)
}

// progress says how much went over by now.
func (r *rawSession) progress(e *audit.Event) {
	stats := r.stream.Stats()
	e.Received, e.Sent = int64(stats.Sent), int64(stats.Received)
}

// ended runs in a goroutine of its own once the session is over.
func (r *rawSession) ended(end mux.SessionStats, err error) {
	defer r.s.raw.Done()
	r.hold.Release()
	r.seen.End(telemetry.SessionEnd{Err: err, Received: int64(end.Sent), Sent: int64(end.Received)})
	r.audit.End(func(e *audit.Event) {
		e.End = audit.EndCompleted
		if err != nil {
			failed(e, err)
		}
	})
}

// failed says why something ended.
func failed(e *audit.Event, err error) {
	f := answer.Fault(wire.HopHub, "", err)
	if broken := (*mux.Error)(nil); errors.As(err, &broken) {
		f = &fault.Error{Hop: broken.Hop, Code: broken.Code.Known(), Err: errors.New(broken.Message)}
	}
	e.Hop, e.Code, e.Error, e.End = f.Hop.String(), f.Code.String(), f.Error(), f.Code.String()
}
