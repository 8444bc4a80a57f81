package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"

	"github.com/culvertdev/culvert/internal/mux"
)

// scope names the instruments' owner, as OpenTelemetry wants it.
const scope = "github.com/culvertdev/culvert"

// Config sets up a [Telemetry]. The functions must be safe for concurrent use
// and must not block; but for Known, they are called at every scrape.
type Config struct {
	// Role is which half of Culvert the process is. Default [RoleHub].
	Role Role
	// Health returns what the process keeps current. Nil: nothing.
	Health func() []Health
	// Ready says whether the process can serve. Nil: always.
	Ready func() error
	// Known says whether a name that a caller gave is a cluster's: others get no
	// series. It is asked once for a name that is one, and at every request for one
	// that is not. Nil: those that Links has, or had, a link of.
	Known func(cluster string) bool
	// Links are the tunnels of the process. Nil: their metrics are left out.
	Links *Links
	// Endpoints returns those of the API server. Nil: left out.
	Endpoints func() []Endpoint
	// Budget is what the tunnels draw their windows from. Nil: left out.
	Budget *mux.Budget
	// AuditDropped and AuditFailed count audit events that a full sink did not take
	// and that could not be delivered; SpansLost is [Tracer.Lost]. Nil: left out.
	AuditDropped, AuditFailed, SpansLost func() uint64
	// Logger gets what goes wrong while metrics are collected. It is required.
	Logger *slog.Logger
}

// Telemetry is the metrics of one process and the handler that shows them. It is
// safe for concurrent use; the zero value is not usable.
type Telemetry struct {
	cfg      Config
	provider *sdkmetric.MeterProvider
	handler  http.Handler
	metrics  *Metrics
	made     []instrument
}

// New returns a Telemetry, which its caller closes. It has a registry of its own,
// so that a program which embeds Culvert can have several.
func New(cfg Config) (*Telemetry, error) {
	if cfg.Logger == nil {
		return nil, errors.New("telemetry: Logger is required")
	}
	cfg.Role = cmp.Or(cfg.Role, RoleHub)
	if cfg.Health == nil {
		cfg.Health = func() []Health { return nil }
	}
	if cfg.Known == nil {
		cfg.Known = cfg.Links.has
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
	t := &Telemetry{cfg: cfg, provider: sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(exporter),
		sdkmetric.WithCardinalityLimit(maxSeries),
		// The text format has no place for them, and each would cost at every record.
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
	)}
	in := &instruments{meter: t.provider.Meter(scope)}
	t.metrics = newMetrics(in, cfg.Role, newClusters(cfg.Known))
	t.state(in)
	t.made = in.made
	if err := in.err(); err != nil {
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

// Metrics returns what the other parts of the process count with: nil, which
// counts nothing, for a nil Telemetry.
func (t *Telemetry) Metrics() *Metrics {
	if t == nil {
		return nil
	}
	return t.metrics
}

// Provider makes instruments for other parts of the process; they show in the
// same metrics.
func (t *Telemetry) Provider() metric.MeterProvider { return t.provider }

// Close ends the collection. The handler goes on to answer, with nothing in the
// metrics.
func (t *Telemetry) Close() error {
	if err := t.provider.Shutdown(context.Background()); err != nil && !errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return fmt.Errorf("close telemetry: %w", err)
	}
	return nil
}
