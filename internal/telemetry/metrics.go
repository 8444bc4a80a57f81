package telemetry

import (
	"cmp"
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Bounds of histograms, in seconds.
var (
	answerBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
	dialBounds   = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
)

// Metrics counts what happens in a process. It is safe for concurrent use, its
// methods return at once and, once a series exists, allocate nothing. A nil
// *Metrics counts nothing, so that nobody has to ask whether metrics are wanted.
//
// Labels come from bounded sets: a name of a cluster that the process does not
// know is "_unknown", a code or hop from a peer is one of this revision.
type Metrics struct {
	role     Role
	clusters *clusters

	requests  metric.Int64Counter
	active    metric.Int64UpDownCounter
	firstByte metric.Float64Histogram
	opens     metric.Int64Counter
	openTime  metric.Float64Histogram
	sessions  metric.Int64Counter
	dialTime  metric.Float64Histogram
	authentic metric.Int64Counter
	decisions metric.Int64Counter
	limited   metric.Int64Counter
	panics    metric.Int64Counter
	calls     metric.Int64Counter

	activeSet *series

	byRequest *labels[requestKey]
	byOpen    *labels[openKey]
	byKind    *labels[Kind]
	byDial    *labels[dialKey]
	byMethod  *labels[methodKey]
	byOutcome *labels[Outcome]
	byScope   *labels[string]
	byRoom    *labels[string]
	byCall    *labels[callKey]
}

type (
	requestKey struct {
		cluster string
		kind    Kind
		status  int // a statusClass
		result  result
	}
	openKey struct {
		cluster string
		kind    Kind
		result  result
	}
	dialKey struct {
		kind Kind
		code string
	}
	methodKey struct {
		method  string
		outcome Outcome
	}
	callKey struct{ method, code string }
)

// newMetrics makes the instruments.
func newMetrics(in *instruments, role Role, known *clusters) *Metrics {
	m := &Metrics{role: role, clusters: known}
	m.requests = in.counter("culvert.requests",
		"HTTP requests that have ended, streams and upgrades included.", "role", "cluster", "kind", "status", "code", "hop")
	m.active = in.upDown("culvert.requests.active", "HTTP requests under way.", "role")
	m.firstByte = in.seconds("culvert.request.first.byte",
		"From the request's head to the answer's.", answerBounds, "role", "kind")
	m.opens = in.counter("culvert.opens",
		"Sessions that were opened, or were not.", "role", "cluster", "kind", "code", "hop")
	m.openTime = in.seconds("culvert.open.duration",
		"How long an open took, whatever came of it.", dialBounds, "role", "kind")
	m.sessions = in.counter("culvert.raw.sessions",
		"Sessions of raw bytes that have ended.", "role", "cluster", "kind", "code", "hop")
	m.dialTime = in.seconds("culvert.dial.duration",
		"How long a connection to a target took, or to fail.", dialBounds, "kind", "code")
	m.authentic = in.counter("culvert.authentications",
		"Requests whose caller was asked for.", "method", "outcome")
	m.decisions = in.counter("culvert.policy.decisions", "Decisions of the policy.", "role", "outcome")
	m.limited = in.counter("culvert.limited", "Requests and sessions refused for a limit.", "scope")
	m.panics = in.counter("culvert.panics", "Panics that were recovered: each is a defect.", "room")
	m.calls = in.counter("culvert.tunnel.calls", "gRPC calls that have ended.", "method", "code")

	m.activeSet = newLabels(func(r Role) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("role", string(r))}
	}).of(role)
	m.byRequest = newLabels(func(k requestKey) []attribute.KeyValue {
		return append(m.session(openKey{k.cluster, k.kind, k.result}), attribute.String("status", statusLabel(k.status)))
	})
	m.byOpen = newLabels(m.session)
	m.byKind = newLabels(func(k Kind) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("role", string(role)), attribute.String("kind", string(k))}
	})
	m.byDial = newLabels(func(k dialKey) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("kind", string(k.kind)), attribute.String("code", k.code)}
	})
	m.byMethod = newLabels(func(k methodKey) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("method", k.method), attribute.String("outcome", string(k.outcome))}
	})
	m.byOutcome = newLabels(func(o Outcome) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("role", string(role)), attribute.String("outcome", string(o))}
	})
	m.byScope = newLabels(func(s string) []attribute.KeyValue { return []attribute.KeyValue{attribute.String("scope", s)} })
	m.byRoom = newLabels(func(s string) []attribute.KeyValue { return []attribute.KeyValue{attribute.String("room", s)} })
	m.byCall = newLabels(func(k callKey) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("method", k.method), attribute.String("code", k.code)}
	})
	return m
}

func (m *Metrics) session(k openKey) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("role", string(m.role)), attribute.String("cluster", k.cluster), attribute.String("kind", string(k.kind)),
		attribute.String("code", k.result.code), attribute.String("hop", k.result.hop),
	}
}

// requestBegun and requestEnded bracket an HTTP request.
func (m *Metrics) requestBegun() {
	if m != nil {
		m.active.Add(context.Background(), 1, m.activeSet.add...)
	}
}

func (m *Metrics) requestEnded(cluster string, kind Kind, status int, res result, firstByte time.Duration) {
	if m == nil {
		return
	}
	ctx := context.Background()
	m.active.Add(ctx, -1, m.activeSet.add...)
	m.requests.Add(ctx, 1, m.byRequest.of(requestKey{m.clusters.label(cluster), kind, statusClass(status), res}).add...)
	if firstByte > 0 {
		m.firstByte.Record(ctx, firstByte.Seconds(), m.byKind.of(kind).record...)
	}
}

func (m *Metrics) opened(cluster string, kind Kind, res result, took time.Duration) {
	if m == nil {
		return
	}
	ctx := context.Background()
	m.opens.Add(ctx, 1, m.byOpen.of(openKey{m.clusters.label(cluster), kind, res}).add...)
	m.openTime.Record(ctx, took.Seconds(), m.byKind.of(kind).record...)
}

func (m *Metrics) sessionEnded(cluster string, kind Kind, res result) {
	if m != nil {
		m.sessions.Add(context.Background(), 1, m.byOpen.of(openKey{m.clusters.label(cluster), kind, res}).add...)
	}
}

// Dialled notes a connection to a target of the given kind, TCP and TLS, and how
// long it took. The err of one that failed should be a [*fault.Error].
func (m *Metrics) Dialled(kind Kind, err error, took time.Duration) {
	if m != nil {
		m.dialTime.Record(context.Background(), took.Seconds(), m.byDial.of(dialKey{kind, resultOf(err).code}).record...)
	}
}

// Authenticated notes who knew a caller, and the outcome. The method is the name of
// an authenticator, which must not come from a caller; it is empty when none knew
// the caller.
func (m *Metrics) Authenticated(method string, outcome Outcome) {
	if m != nil {
		m.authentic.Add(context.Background(), 1, m.byMethod.of(methodKey{cmp.Or(method, "none"), outcome}).add...)
	}
}

// Decided notes a decision of this process's policy.
func (m *Metrics) Decided(outcome Outcome) {
	if m != nil {
		m.decisions.Add(context.Background(), 1, m.byOutcome.of(outcome).add...)
	}
}

// Limited notes a refusal for a limit; the scope is "user", "cluster" or "remote".
func (m *Metrics) Limited(scope string) {
	if m != nil {
		m.limited.Add(context.Background(), 1, m.byScope.of(scope).add...)
	}
}

// Panicked notes a panic that was recovered; the room is where: "request",
// "session", "tunnel" or "enrolment".
func (m *Metrics) Panicked(room string) {
	if m != nil {
		m.panics.Add(context.Background(), 1, m.byRoom.of(room).add...)
	}
}

// Called notes a gRPC call that has ended, by the method's name and the name of
// its status code. The method must be one that the process serves.
func (m *Metrics) Called(method, code string) {
	if m != nil {
		m.calls.Add(context.Background(), 1, m.byCall.of(callKey{method, code}).add...)
	}
}
