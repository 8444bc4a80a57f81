package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TracerConfig sets up a [Tracer].
type TracerConfig struct {
	Settings Settings
	// Role is which half of Culvert the process is; the service's name is culvert-
	// and this. Default [RoleHub].
	Role Role
	// Version and Instance tell processes apart.
	Version, Instance string
	// Logger gets what goes wrong with sending spans. It is required.
	Logger *slog.Logger
}

// Tracer makes the spans of a process and sends them to a collector, in batches
// and in the background: nobody waits for it, and what does not fit into its
// bounded queue (OTEL_BSP_MAX_QUEUE_SIZE, 2048 spans by default) is dropped. It is
// safe for concurrent use. A nil *Tracer makes none.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
}

// NewTracer returns a Tracer, which the caller closes, or nil when neither the
// settings nor the environment ask for one. The collector is not contacted. The
// context bounds the call only.
func NewTracer(ctx context.Context, cfg TracerConfig) (*Tracer, error) {
	if cfg.Logger == nil {
		return nil, errors.New("telemetry: Logger is required")
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	wanted, err := cfg.Settings.wanted()
	if err != nil || !wanted {
		return nil, err
	}
	var to []otlptracehttp.Option
	if cfg.Settings.OTLPEndpoint != "" {
		endpoint, err := cfg.Settings.endpoint()
		if err != nil {
			return nil, err
		}
		to = append(to, otlptracehttp.WithEndpointURL(endpoint))
	}
	otlp, err := otlptracehttp.New(ctx, to...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: make the exporter of spans: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", "culvert-"+string(cmp.Or(cfg.Role, RoleHub))),
			attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Instance),
		),
		resource.WithFromEnv(), // the last word is the operator's
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err), otlp.Shutdown(ctx))
	}
	t := &Tracer{exporter: &exporter{SpanExporter: otlp, log: cfg.Logger}}
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(t.exporter), sdktrace.WithResource(about)}
	if share := cfg.Settings.Sampling; share != nil {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(*share))))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.tracer = t.provider.Tracer(scope)
	return t, nil
}

// Lost counts the spans that could not be sent.
func (t *Tracer) Lost() uint64 {
	if t == nil {
		return 0
	}
	return t.exporter.lost.Load()
}

// Close sends the spans that are left, for as long as ctx lets it, and ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("close telemetry: send the last spans: %w", err)
	}
	return nil
}

// reportEvery keeps a collector that is away from filling the log.
const reportEvery = time.Minute

// exporter keeps failures out of OpenTelemetry's handler of errors, which is one
// for all of a program and writes to standard error.
type exporter struct {
	sdktrace.SpanExporter

	log      *slog.Logger
	lost     atomic.Uint64
	reported atomic.Int64 // Unix time in nanoseconds
}

// ExportSpans sends spans. Failures are counted and told to the log; nobody could
// do more about them.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	lost := e.lost.Add(uint64(len(spans)))
	now, last := time.Now().UnixNano(), e.reported.Load()
	if now-last > int64(reportEvery) && e.reported.CompareAndSwap(last, now) {
		e.log.Warn("spans could not be sent to the collector", "lost", lost, "reason", err)
	}
	return nil
}
