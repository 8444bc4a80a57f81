package server

import (
	"context"
	"errors"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// sessions implements [front.Sessions], apart from the methods of Server, which are
// for programs that embed a hub.
type sessions struct{ s *Server }

// Admit implements [front.Sessions].
func (o sessions) Admit(ctx context.Context, f *front.Session) error {
	s := o.s
	if err := s.limits.Admit(&f.Hold, limit.Remote, limit.Network(f.Source), limit.Session); err != nil {
		s.observer.Metrics.Limited(limit.Remote.String())
		return err
	}
	return s.audit.Admit(ctx)
}

// Open implements [front.Sessions].
func (o sessions) Open(ctx context.Context, f *front.Session) (*mux.Session, error) {
	r := &rawSession{s: o.s, Session: f}
	return r.open(ctx, true)
}

// Refuse implements [front.Sessions].
func (o sessions) Refuse(ctx context.Context, f *front.Session, err error) {
	(&rawSession{s: o.s, Session: f}).refused(ctx, err)
}

// rawSession is a session of raw bytes, from before it is opened to its end.
type rawSession struct {
	*front.Session

	s        *Server
	decision policy.Decision
	decided  bool
	// agent has the session, or refused it.
	agent  string
	audit  *audit.Session
	seen   *telemetry.Session
	stream *mux.Session
}

// open decides about a session and opens it. What became of it is recorded in
// any case.
func (r *rawSession) open(ctx context.Context, decide bool) (stream *mux.Session, err error) {
	splice.Aside(func() { stream, err = r.openHere(ctx, decide) })
	return stream, err
}

func (r *rawSession) openHere(ctx context.Context, decide bool) (*mux.Session, error) {
	s := r.s
	if decide {
		if err := r.admit(ctx); err != nil {
			r.refused(ctx, err)
			return nil, err
		}
	}
	seen := telemetry.SessionStart{
		OpenStart: telemetry.OpenStart{Cluster: r.Cluster, Target: r.Target, RequestID: answer.RequestID(ctx)},
	}
	if r.Caller.User != nil {
		seen.User = r.Caller.User.GetName()
	}
	ctx, r.seen = s.observer.StartSession(ctx, seen)
	stream, agent, err := s.open(ctx, r.Cluster, r.Target, r.First)
	r.agent = agent
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
	s, caller := r.s, r.Caller.User
	if caller == nil {
		return &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeUnauthenticated, Cluster: r.Cluster,
			Err: errors.New("the session has no caller")}
	}
	for _, bound := range []struct {
		scope limit.Scope
		key   string
	}{{limit.User, identity.Real(caller).GetName()}, {limit.Cluster, r.Cluster}} {
		if err := s.limits.Admit(&r.Hold, bound.scope, bound.key, limit.Session); err != nil {
			s.observer.Metrics.Limited(bound.scope.String())
			return err
		}
	}
	labels, err := s.labels(r.Cluster)
	if err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeUnavailable, Cluster: r.Cluster, Err: err}
	}
	ask := policy.Request{User: caller, Cluster: policy.Cluster{Name: r.Cluster, Labels: labels}}
	if err := ask.SetTarget(r.Target); err != nil {
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
		return https.Refused(caller, r.Cluster, r.Target, decision)
	}
	s.observer.Metrics.Decided(telemetry.Allowed)
	return nil
}

// event is what is known of the session by now.
func (r *rawSession) event(ctx context.Context) audit.Event {
	e := audit.Event{
		Start: r.Start, RequestID: answer.RequestID(ctx), TraceID: telemetry.TraceID(ctx), Source: r.Source,
		Authentication: string(r.Caller.Method), Cluster: r.Cluster, Agent: r.agent, Verb: "connect",
	}
	if r.Target.Kind != wire.TargetUnknown {
		e.Target = r.Target.String()
	}
	if u := r.Caller.User; u != nil {
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
	r.Hold.Release()
	e := r.event(ctx)
	e.Stage = audit.StageSessionEnd
	failed(&e, err)
	r.s.audit.Record(&e)
	r.s.log.Info("session refused", "request_id", e.RequestID, "cluster", r.Cluster, "agent", e.Agent, "user", e.User.Name, "target", e.Target, "code", e.Code, "error", err)
}

// progress says how much went over by now.
func (r *rawSession) progress(e *audit.Event) {
	stats := r.stream.Stats()
	e.Received, e.Sent = int64(stats.Sent), int64(stats.Received)
}

// ended runs in a goroutine of its own once the session is over.
func (r *rawSession) ended(end mux.SessionStats, err error) {
	defer r.s.raw.Done()
	r.Hold.Release()
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
