package audit

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// scope names the instruments' owner, as OpenTelemetry wants it.
const scope = "github.com/culvertdev/culvert"

// metrics shows the sinks, one series a sink each:
//
//	culvert_audit_events_total{sink}          lines written
//	culvert_audit_dropped_total{sink}         lines lost
//	culvert_audit_write_failures_total{sink}  attempts that failed
//	culvert_audit_queue_bytes{sink}           bytes that wait
type metrics struct{ registration metric.Registration }

func newMetrics(from metric.MeterProvider, drains []*drain) (*metrics, error) {
	if from == nil {
		return &metrics{}, nil
	}
	meter := from.Meter(scope)
	counter := func(name, description string) (metric.Int64ObservableCounter, error) {
		return meter.Int64ObservableCounter(name, metric.WithDescription(description))
	}
	events, err := counter("culvert.audit.events", "Audit events that were written.")
	if err != nil {
		return nil, err
	}
	dropped, err := counter("culvert.audit.dropped", "Audit events that were lost.")
	if err != nil {
		return nil, err
	}
	failures, err := counter("culvert.audit.write.failures", "Attempts to write audit events that failed.")
	if err != nil {
		return nil, err
	}
	queued, err := meter.Int64ObservableGauge("culvert.audit.queue",
		metric.WithUnit("By"), metric.WithDescription("Bytes of audit events that wait for the sink."))
	if err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, d := range drains {
			sink := metric.WithAttributes(attribute.String("sink", d.name))
			o.ObserveInt64(events, int64(d.written.Load()), sink)
			o.ObserveInt64(dropped, int64(d.dropped.Load()), sink)
			o.ObserveInt64(failures, int64(d.failures.Load()), sink)
			bytes, _, _ := d.queue.state()
			o.ObserveInt64(queued, int64(bytes), sink)
		}
		return nil
	}, events, dropped, failures, queued)
	if err != nil {
		return nil, err
	}
	return &metrics{registration: registration}, nil
}

func (m *metrics) close() error {
	if m.registration == nil {
		return nil
	}
	return m.registration.Unregister()
}
