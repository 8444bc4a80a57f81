package agent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestEndpoints(t *testing.T) {
	var ready atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer api.Close()
	h := newTestHub(t, time.Hour)
	var log lines
	cfg := h.config(&log)
	cfg.Kubernetes = &rest.Config{Host: api.URL}
	cfg.KubernetesProbe = Probe{Interval: metav1.Duration{Duration: 100 * time.Millisecond}}
	_, token := h.token("edge-1")
	if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
		t.Fatal(err)
	}
	a, _ := h.run(cfg)
	link := <-h.links
	told := func() wire.Readiness {
		if r := link.PeerStatus().For(wire.KubernetesAPI()); r != nil {
			return *r
		}
		return wire.Readiness{}
	}
	verbose := func() string { return telemetry.Lines(a.Health(), time.Now()) }
	address := strings.TrimPrefix(api.URL, "http://")
	t.Run("D13: the hub is told that the API server is not ready, and people are", func(t *testing.T) {
		eventually(t, "the hub knows", func() bool {
			r := told()
			return !r.Ready && r.Code == wire.CodeUnavailable && strings.Contains(r.Message, address+": /readyz answers 500 (3 probes failed)")
		})
		if text := verbose(); !strings.Contains(text, "[!]kubernetes endpoints ok: 0 of 1 healthy, WARNING: "+address+": /readyz answers 500 (3 probes failed)\n") {
			t.Errorf("shown as %s", text)
		}
		if err := a.ready(); err != nil {
			t.Errorf("the agent itself is not ready: %v", err)
		}
		if len(log.with("endpoint failed")) != 1 {
			t.Errorf("log: %s", log.String())
		}
	})
	t.Run("D13: and when it is again", func(t *testing.T) {
		ready.Store(true)
		eventually(t, "the hub knows", func() bool { return told().Ready })
		if text := verbose(); !strings.Contains(text, "[+]kubernetes endpoints ok: 1 of 1 healthy\n") {
			t.Errorf("shown as %s", text)
		}
		if e := a.endpoints(); len(e) != 1 || !e[0].Healthy || e[0].Address != address {
			t.Errorf("metrics: %+v", e)
		}
	})
}

func TestEndpointsConfig(t *testing.T) {
	cfg := Config{KubernetesEndpoints: []string{"https://10.0.0.1:6443"}, KubernetesBalance: "fast", KubernetesProbe: Probe{Kind: "icmp"}}
	err := cfg.Validate()
	for _, field := range []string{"kubernetesEndpoints: [0]", "kubernetesBalance: ", "kubernetesProbe: kind"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
