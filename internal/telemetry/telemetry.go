package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// scope names the instruments' owner, as OpenTelemetry wants it.
const scope = "github.com/culvertdev/culvert"

// Config sets up a [Telemetry]. The functions must be safe for concurrent use
// and must not block; they are called at every scrape.
type Config struct {
	// Health returns what the process keeps current. Nil: nothing.
	Health func() []Health
	// Ready says whether the process can serve. Nil: always.
	Ready func() error
	// Logger gets what goes wrong while metrics are collected. It is required.
	Logger *slog.Logger
}

// Telemetry is the metrics of one process and the handler that shows them. It is
// safe for concurrent use; the zero value is not usable.
type Telemetry struct {
	cfg      Config
	provider *sdkmetric.MeterProvider
	handler  http.Handler
}

// New returns a Telemetry, which its caller closes. It has a registry of its own,
// so that a program which embeds Culvert can have several.
func New(cfg Config) (*Telemetry, error) {
	if cfg.Logger == nil {
		return nil, errors.New("telemetry: Logger is required")
	}
	if cfg.Health == nil {
		cfg.Health = func() []Health { return nil }
	}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(
		otelprometheus.WithRegisterer(registry),
		otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t := &Telemetry{cfg: cfg, provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}
	if err := t.instruments(); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: %w", err), t.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", t.serveHealth)
	mux.HandleFunc("GET /readyz", t.serveReady)
	t.handler = mux
	return t, nil
}

// Provider makes instruments for other parts of the process; they show in the
// same metrics.
func (t *Telemetry) Provider() metric.MeterProvider { return t.provider }

func (t *Telemetry) instruments() error {
	meter := t.provider.Meter(scope)
	// The exporter adds the unit and "_total" to the names.
	expiry, err := meter.Int64ObservableGauge("culvert.certificate.expiry.timestamp",
		metric.WithUnit("s"), metric.WithDescription("When the certificate expires, in seconds since 1970."))
	if err != nil {
		return err
	}
	failures, err := meter.Int64ObservableCounter("culvert.reload.failures",
		metric.WithDescription("How often changed content of a file could not be used; what was read before stays in force."))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		t.observe(o, expiry, failures)
		return nil
	}, expiry, failures)
	return err
}

func (t *Telemetry) observe(o metric.Observer, expiry, failures metric.Int64Observable) {
	for _, h := range t.cfg.Health() {
		name := metric.WithAttributes(attribute.String("name", h.Name))
		o.ObserveInt64(failures, int64(h.Failures), name)
		if !h.NotAfter.IsZero() {
			o.ObserveInt64(expiry, h.NotAfter.Unix(), name)
		}
	}
}

// Close ends the collection. The handler goes on to answer, with nothing in the
// metrics.
func (t *Telemetry) Close() error {
	if err := t.provider.Shutdown(context.Background()); err != nil && !errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return fmt.Errorf("close telemetry: %w", err)
	}
	return nil
}
