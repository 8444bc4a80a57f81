package telemetry

import (
	"net/http"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Exchange is a request and its answer: the Exchange of package relay is one. Its
// methods are safe for concurrent use. One that also has Panicked() bool is counted
// as a recovered panic where that is true.
type Exchange interface {
	// Header returns the answer's.
	Header() http.Header
	// Status returns the status sent, or 0 so far.
	Status() int
	// Received and Sent return the bytes of the bodies, or of an upgraded stream.
	Received() int64
	Sent() int64
	// FirstByte returns how long after the start the answer's head was sent, or 0.
	FirstByte() time.Duration
	// Fault returns the first failure, or nil.
	Fault() *fault.Error
}

// Request is one HTTP request at this hop. Its methods are for one goroutine at a
// time; a nil *Request, which [Observer.Begin] returns when nobody observes, does
// nothing.
type Request struct {
	o       Observer
	out     Exchange
	span    trace.Span // nil without a Tracer
	entry   *activity  // nil without a Live
	method  string
	path    string
	id      string
	cluster string
	kind    Kind
}

// Begin begins to observe a request whose exchange is out, and returns the
// request to go on with: its context carries the trace. A valid traceparent of
// the sender is honoured, with its decision about sampling; without a Tracer it
// is in the context as well, see [TraceParent]. The caller must call End.
func (o Observer) Begin(r *http.Request, out Exchange) (*Request, *http.Request) {
	before := r.Context()
	ctx := fromHeader(before, r.Header)
	if o.idle() {
		if ctx != before {
			r = r.WithContext(ctx)
		}
		return nil, r
	}
	q := &Request{o: o, out: out, method: method(r.Method), path: r.URL.EscapedPath(), id: answer.RequestID(ctx), kind: KindNone}
	ctx, q.span = o.start(ctx, q.method, trace.SpanKindServer)
	if ctx != before {
		r = r.WithContext(ctx)
	}
	o.Metrics.requestBegun()
	if o.Live != nil {
		q.entry = o.Live.enter(activity{kind: "request", method: q.method, path: bounded(q.path, maxPath), requestID: q.id, trace: TraceID(ctx), bytes: q.bytes})
	}
	return q, r
}

func (q *Request) bytes() (received, sent int64) { return q.out.Received(), q.out.Sent() }

// Route tells where the request leads, once that is known. The cluster is empty at
// an agent.
func (q *Request) Route(cluster string, target wire.Target) {
	if q == nil {
		return
	}
	q.cluster, q.kind = cluster, KindOf(target)
	if q.recording() {
		q.span.SetName(q.method + " " + string(q.kind))
		q.span.SetAttributes(attrCluster.String(bounded(cluster, maxText)), attrTarget.String(bounded(target.String(), maxText)))
	}
	if q.entry != nil {
		q.o.Live.route(q.entry, cluster, target)
	}
}

// User tells who the caller is, for the live view alone: identities are in no
// metric and in no span.
func (q *Request) User(name string) {
	if q != nil && q.entry != nil {
		q.o.Live.user(q.entry, name)
	}
}

func (q *Request) recording() bool { return q.span != nil && q.span.IsRecording() }

// result returns the code and hop of what was answered. An answer that the agent
// made has its code in the header.
func (q *Request) result() result {
	if f := q.out.Fault(); f != nil {
		return resultOf(f)
	}
	if code := q.out.Header().Get(answer.HeaderError); code != "" {
		if !codesByLabel[code] {
			code = codeLabel(wire.CodeInternal)
		}
		return result{code: code, hop: wire.HopAgent.String()}
	}
	return result{code: codeOK}
}

// End ends the observation. It is called once, after the last byte.
func (q *Request) End() {
	if q == nil {
		return
	}
	if q.entry != nil {
		q.o.Live.leave(q.entry)
	}
	res, status := q.result(), q.out.Status()
	q.o.Metrics.requestEnded(q.cluster, q.kind, status, res, q.out.FirstByte())
	if p, ok := q.out.(interface{ Panicked() bool }); ok && p.Panicked() {
		q.o.Metrics.Panicked("request")
	}
	if q.span == nil {
		return
	}
	if q.span.IsRecording() {
		q.span.SetAttributes(
			attrMethod.String(q.method), attrPath.String(bounded(q.path, maxPath)), attrStatus.Int(status), attrRequestID.String(q.id),
			attrCode.String(res.code), attrReceived.Int64(q.out.Received()), attrSent.Int64(q.out.Sent()),
		)
		setHop(q.span, res)
		if status >= http.StatusInternalServerError || res.code != codeOK && status < http.StatusBadRequest {
			q.span.SetStatus(codes.Error, res.code)
		}
	}
	q.span.End()
}

func setHop(span trace.Span, res result) {
	if res.hop != "" {
		span.SetAttributes(attrHop.String(res.hop))
	}
}
