package telemetry

import (
	"context"
	"encoding/hex"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// The form of trace contexts is W3C's (https://www.w3.org/TR/trace-context/). What
// is not in that form counts as absent.
var traceContext propagation.TraceContext

const headerTraceParent = "Traceparent"

// TraceParent returns the traceparent of the span in ctx, or "" when there is
// none. Where no Tracer is at work it is the one that the caller sent.
func TraceParent(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return ""
	}
	id, span := sc.TraceID(), sc.SpanID()
	out := make([]byte, 0, 55)
	out = append(out, "00-"...)
	out = hex.AppendEncode(out, id[:])
	out = append(out, '-')
	out = hex.AppendEncode(out, span[:])
	out = append(out, '-')
	out = hex.AppendEncode(out, []byte{byte(sc.TraceFlags() & trace.FlagsSampled)})
	return string(out)
}

// TraceID returns the trace id of the span in ctx in hexadecimal, or "" when there
// is none. It is what an audit line and a log line carry.
func TraceID(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.HasTraceID() {
		return ""
	}
	return sc.TraceID().String()
}

// fromHeader puts what the sender of a request says about its trace into ctx.
func fromHeader(ctx context.Context, h http.Header) context.Context {
	if len(h[headerTraceParent]) == 0 {
		return ctx
	}
	return traceContext.Extract(ctx, propagation.HeaderCarrier(h))
}

// fromParent is fromHeader for a traceparent alone.
func fromParent(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	return traceContext.Extract(ctx, parentCarrier(parent))
}

// parentCarrier carries a traceparent and nothing else.
type parentCarrier string

// Get implements propagation.TextMapCarrier.
func (p parentCarrier) Get(key string) string {
	if key == "traceparent" {
		return string(p)
	}
	return ""
}

// Set implements propagation.TextMapCarrier; nothing is ever set.
func (parentCarrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (parentCarrier) Keys() []string { return []string{"traceparent"} }
