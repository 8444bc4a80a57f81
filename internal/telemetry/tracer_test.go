package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestSettings(t *testing.T) {
	half, most, nan := 0.5, 1.5, 0.0
	nan /= nan
	for _, c := range []struct {
		settings telemetry.Settings
		want     string
	}{
		{telemetry.Settings{}, ""},
		{telemetry.Settings{OTLPEndpoint: "http://collector:4318", Sampling: &half}, ""},
		{telemetry.Settings{OTLPEndpoint: "https://collector/otlp/v1/traces"}, ""},
		{telemetry.Settings{OTLPEndpoint: "collector:4317"}, "telemetry.otlpEndpoint: http:// or https://"},
		{telemetry.Settings{OTLPEndpoint: "http://"}, "telemetry.otlpEndpoint: http:// or https://"},
		{telemetry.Settings{OTLPEndpoint: "http://collector?token=s3cret"}, "telemetry.otlpEndpoint: http:// or https://"},
		{telemetry.Settings{OTLPEndpoint: "http://u:s3cret@collector"}, "OTEL_EXPORTER_OTLP_HEADERS"},
		{telemetry.Settings{OTLPEndpoint: "http://s3cret:%zz"}, "telemetry.otlpEndpoint: not a URL"},
		{telemetry.Settings{Sampling: &most}, "telemetry.sampling: 1.5 is not between 0 and 1"},
		{telemetry.Settings{Sampling: &nan}, "telemetry.sampling: NaN"},
	} {
		err := c.settings.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.settings, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("D7: the error has a credential in it: %v", err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	discard := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		title  string
		env    map[string]string
		set    string
		traces bool
		err    string
	}{
		{"nothing asks for traces", nil, "", false, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT does", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "", true, ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT does", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/t"}, "", true, ""},
		{"OTEL_TRACES_EXPORTER does", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, "", true, ""},
		{"the configuration does", nil, "http://collector:4318", true, ""},
		{"OTEL_TRACES_EXPORTER=none does not", map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "", false, ""},
		{"OTEL_SDK_DISABLED has the last word", map[string]string{"OTEL_SDK_DISABLED": "true"}, "http://collector:4318", false, ""},
		{"another exporter is refused", map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, "", false, "OTEL_TRACES_EXPORTER=zipkin"},
		{"another protocol is refused", map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://collector:4318", false, "use http/protobuf"},
		{"the protocol of traces counts first", map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, "http://collector:4318", true, ""},
		{"wrong settings are refused", nil, "collector", false, "telemetry.otlpEndpoint"},
	} {
		t.Run("N11: "+c.title, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{Settings: telemetry.Settings{OTLPEndpoint: c.set}, Logger: discard})
			if (tracer != nil) != c.traces || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, %v", tracer, err)
			}
			if err := tracer.Close(t.Context()); err != nil { // also of nil
				t.Error(err)
			}
		})
	}
	t.Run("N11: spans go where the environment says, with its headers and name of the service", func(t *testing.T) {
		c := newCollector(t)
		var key string
		take := c.server.Config.Handler
		c.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key = r.Header.Get("X-Key")
			take.ServeHTTP(w, r)
		})
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.server.URL)
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1")
		t.Setenv("OTEL_SERVICE_NAME", "my-hub")
		tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{Logger: discard})
		if err != nil {
			t.Fatal(err)
		}
		_, open := telemetry.Observer{Tracer: tracer}.StartOpen(t.Context(), telemetry.OpenStart{Target: wire.KubernetesAPI()})
		open.End(nil)
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if all := c.all(); len(all) != 1 || all[0].service != "my-hub" || key != "k1" || c.path != "/v1/traces" {
			t.Errorf("got %v, key %q, path %q", all, key, c.path)
		}
	})
	if _, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{}); err == nil {
		t.Error("no logger, no error")
	}
}

// log is what a test reads.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestCollectorTrouble(t *testing.T) {
	open := func(tracer *telemetry.Tracer) {
		_, open := telemetry.Observer{Tracer: tracer}.StartOpen(context.Background(), telemetry.OpenStart{Target: wire.KubernetesAPI()})
		open.End(nil)
	}
	t.Run("N11: spans that a collector refuses are counted and told once", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
		defer server.Close()
		t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
		out := &log{}
		tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{
			Settings: telemetry.Settings{OTLPEndpoint: server.URL}, Logger: slog.New(slog.NewTextHandler(out, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			open(tracer)
		}
		if err := tracer.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if tracer.Lost() != 6 || strings.Count(out.String(), "spans could not be sent") != 1 || !strings.Contains(out.String(), "403") {
			t.Errorf("lost %d, log:\n%s", tracer.Lost(), out)
		}
	})
	t.Run("N11: a collector that never answers stops neither a request nor the end", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // connections wait in its queue
		tracer, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{
			Settings: telemetry.Settings{OTLPEndpoint: "http://" + l.Addr().String()}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		// The reference: as many spans with a collector that answers, on a machine as busy.
		quick, err := telemetry.NewTracer(t.Context(), telemetry.TracerConfig{
			Settings: telemetry.Settings{OTLPEndpoint: answering(t)}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		many := func(tracer *telemetry.Tracer) time.Duration {
			start := time.Now()
			for range 10_000 { // more than the queue holds
				open(tracer)
			}
			return time.Since(start)
		}
		pace := many(quick)
		if err := quick.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := many(tracer); took > 5*time.Second+5*pace {
			t.Errorf("the spans took %v, and %v where the collector answers", took, pace)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := tracer.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*time.Second+5*pace {
			t.Errorf("the end took %v", took)
		}
	})
}

// answering is the address of a collector that takes everything.
func answering(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client sees what is wrong
	}))
	t.Cleanup(server.Close)
	return server.URL
}
