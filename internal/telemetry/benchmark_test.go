package telemetry_test

import (
	"log/slog"
	"testing"

	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// BenchmarkRequest is what observing one request costs, beside the request.
func BenchmarkRequest(b *testing.B) {
	tel, err := telemetry.New(telemetry.Config{Known: func(string) bool { return true }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer tel.Close()
	none := 0.0
	unsampled, err := telemetry.NewTracer(b.Context(), telemetry.TracerConfig{
		Settings: telemetry.Settings{OTLPEndpoint: "http://127.0.0.1:1", Sampling: &none}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer unsampled.Close(b.Context())
	for _, c := range []struct {
		title string
		o     telemetry.Observer
	}{
		{"nothing", telemetry.Observer{}},
		{"metrics", telemetry.Observer{Metrics: tel.Metrics()}},
		{"live", telemetry.Observer{Live: telemetry.NewLive()}},
		{"metrics and live", telemetry.Observer{Metrics: tel.Metrics(), Live: telemetry.NewLive()}},
		{"unsampled traces", telemetry.Observer{Tracer: unsampled}},
	} {
		b.Run(c.title, func(b *testing.B) {
			r, x := request(b), &finished{status: 200}
			b.ReportAllocs()
			for b.Loop() {
				seen, _ := c.o.Begin(r, x)
				seen.Route("edge", wire.KubernetesAPI())
				seen.User("alice")
				c.o.Metrics.Authenticated("token", telemetry.Allowed)
				c.o.Metrics.Decided(telemetry.Allowed)
				seen.End()
			}
		})
	}
}
