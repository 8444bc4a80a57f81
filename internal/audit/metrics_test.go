package audit

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/telemetry"
)

func TestMetrics(t *testing.T) {
	t.Run("N11: the metrics have the documented names, and a series a sink", func(t *testing.T) {
		telemetry, err := telemetry.New(telemetry.Config{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: io.Discard, Meters: telemetry.Provider()})
		l.Record(typical())
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		w := httptest.NewRecorder()
		telemetry.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		for _, want := range []string{
			`culvert_audit_events_total{sink="stdout"} 1`, `culvert_audit_dropped_total{sink="stdout"} 0`,
			`culvert_audit_write_failures_total{sink="stdout"} 0`, `culvert_audit_queue_bytes{sink="stdout"} 0`,
		} {
			if !strings.Contains(w.Body.String(), want+"\n") {
				t.Errorf("%s is not in\n%s", want, w.Body.String())
			}
		}
		shut(t, l)
		if err := telemetry.Close(); err != nil {
			t.Error(err)
		}
	})
}
