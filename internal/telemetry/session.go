package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/culvertdev/culvert/internal/wire"
)

// OpenStart describes a session that is being opened.
type OpenStart struct {
	// Cluster is empty at an agent.
	Cluster   string
	Target    wire.Target
	RequestID string
	// Trace is what the other side sent with its open; empty at the side that opens,
	// whose context has the trace.
	Trace string
}

// Open is a session that is being opened. A nil *Open does nothing.
type Open struct {
	o       Observer
	cluster string
	kind    Kind
	start   time.Time
	span    trace.Span // nil without a Tracer
}

// StartOpen begins to observe the opening of a session. The context that it
// returns carries the trace, which [TraceParent] gives to the other side. The
// caller must call End.
func (o Observer) StartOpen(ctx context.Context, s OpenStart) (context.Context, *Open) {
	ctx = fromParent(ctx, s.Trace)
	if o.Metrics == nil && o.Tracer == nil {
		return ctx, nil
	}
	open := &Open{o: o, cluster: s.Cluster, kind: KindOf(s.Target), start: time.Now()}
	ctx, open.span = o.start(ctx, "open "+string(open.kind), side(s.Trace))
	describe(open.span, s.Cluster, s.Target, s.RequestID)
	return ctx, open
}

// side is of a span whose parent is in another process, or is in this one.
func side(parent string) trace.SpanKind {
	if parent != "" {
		return trace.SpanKindServer
	}
	return trace.SpanKindClient
}

// describe says what a session leads to.
func describe(span trace.Span, cluster string, target wire.Target, requestID string) {
	if span == nil || !span.IsRecording() {
		return
	}
	about := []attribute.KeyValue{attrTarget.String(bounded(target.String(), maxText)), attrRequestID.String(bounded(requestID, maxText))}
	if cluster != "" {
		about = append(about, attrCluster.String(bounded(cluster, maxText)))
	}
	span.SetAttributes(about...)
}

// End tells that the session was opened, or why it was not. It is called once.
func (p *Open) End(err error) {
	if p == nil {
		return
	}
	res := resultOf(err)
	p.o.Metrics.opened(p.cluster, p.kind, res, time.Since(p.start))
	finish(p.span, res)
}

// finish ends a span with what came of it.
func finish(span trace.Span, res result) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(attrCode.String(res.code))
		setHop(span, res)
		if res.code != codeOK {
			span.SetStatus(codes.Error, res.code)
		}
	}
	span.End()
}

// SessionStart describes a session of raw bytes.
type SessionStart struct {
	OpenStart

	// User is who opened it, for the live view; empty where that is not known.
	User string
	// Bytes returns what has passed so far, for the live view, in the caller's
	// directions. It must be safe for concurrent use. Nil: not shown.
	Bytes func() (received, sent int64)
}

// SessionEnd is what became of a session.
type SessionEnd struct {
	// Err is why it ended; nil when both sides closed it.
	Err            error
	Received, Sent int64
}

// Session is a session of raw bytes. A nil *Session does nothing.
type Session struct {
	o       Observer
	cluster string
	kind    Kind
	span    trace.Span // nil without a Tracer
	entry   *activity  // nil without a Live
}

// StartSession begins to observe a session of raw bytes, best before it is opened
// so that the opening is a part of it. It has a span of its own. The caller must
// call End.
func (o Observer) StartSession(ctx context.Context, s SessionStart) (context.Context, *Session) {
	ctx = fromParent(ctx, s.Trace)
	if o.idle() {
		return ctx, nil
	}
	session := &Session{o: o, cluster: s.Cluster, kind: KindOf(s.Target)}
	ctx, session.span = o.start(ctx, "session "+string(session.kind), side(s.Trace))
	describe(session.span, s.Cluster, s.Target, s.RequestID)
	if o.Live != nil {
		session.entry = o.Live.enter(activity{
			kind: "session", user: s.User, cluster: s.Cluster, target: s.Target.String(), requestID: s.RequestID, trace: TraceID(ctx), bytes: s.Bytes,
		})
	}
	return ctx, session
}

// End tells that the session has ended. It is called once.
func (s *Session) End(end SessionEnd) {
	if s == nil {
		return
	}
	if s.entry != nil {
		s.o.Live.leave(s.entry)
	}
	res := resultOf(end.Err)
	s.o.Metrics.sessionEnded(s.cluster, s.kind, res)
	if s.span != nil && s.span.IsRecording() {
		s.span.SetAttributes(attrReceived.Int64(end.Received), attrSent.Int64(end.Sent))
	}
	finish(s.span, res)
}
