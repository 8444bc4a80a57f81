package telemetry

import (
	"net/http"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Transport returns a RoundTripper that sends each request of rt in a span of its
// own and tells the other side of it with traceparent. The span ends with the head
// of the answer. Without a Tracer it returns rt, and the sender's header goes on
// as it came.
func (o Observer) Transport(rt http.RoundTripper) http.RoundTripper {
	if o.Tracer == nil {
		return rt
	}
	return &transport{observer: o, next: rt}
}

type transport struct {
	observer Observer
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	m := method(r.Method)
	ctx, span := t.observer.start(r.Context(), m, trace.SpanKindClient)
	defer span.End()
	r = r.WithContext(ctx)
	r.Header = r.Header.Clone()
	traceContext.Inject(ctx, propagation.HeaderCarrier(r.Header))
	res, err := t.next.RoundTrip(r)
	if !span.IsRecording() {
		return res, err
	}
	span.SetAttributes(attrMethod.String(m))
	if err != nil {
		failed := resultOf(err)
		span.SetAttributes(attrCode.String(failed.code))
		setHop(span, failed)
		span.SetStatus(codes.Error, failed.code)
		return res, err
	}
	span.SetAttributes(attrStatus.Int(res.StatusCode))
	if res.StatusCode >= http.StatusBadRequest { // an error for the client of the conventions
		span.SetStatus(codes.Error, "")
	}
	return res, nil
}
