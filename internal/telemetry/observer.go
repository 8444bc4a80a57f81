package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// Observer is how the other parts of a process tell what they do. Each of its
// fields may be nil; the zero value observes nothing, and costs next to nothing.
// It is a value to be copied, safe for concurrent use.
type Observer struct {
	Metrics *Metrics
	Tracer  *Tracer
	Live    *Live
}

func (o Observer) idle() bool { return o.Metrics == nil && o.Tracer == nil && o.Live == nil }

// start begins a span; it is nil without a Tracer.
func (o Observer) start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	if o.Tracer == nil {
		return ctx, nil
	}
	return o.Tracer.tracer.Start(ctx, name, trace.WithSpanKind(kind)) //nolint:spancheck // whoever began it ends it
}
