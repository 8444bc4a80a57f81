package upstream_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestProbeKinds(t *testing.T) {
	t.Run("D13: an HTTP probe is GET /readyz, and an answer that says no takes the endpoint out", func(t *testing.T) {
		var status, probes atomic.Int64
		status.Store(200)
		var asked sync.Map
		handler := func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" {
					asked.Store(fmt.Sprintf("%s %s %s %q %q", r.Method, r.URL.Path, r.Host, r.Header.Get("Authorization"), r.Header.Get("Impersonate-User")), true)
					if name == "one" {
						probes.Add(1)
						w.WriteHeader(int(status.Load()))
						fmt.Fprint(w, "[+]ping ok\n[-]etcd failed: reason withheld\n")
					}
				}
			}
		}
		probe := quickly(upstream.ProbeHTTP)
		probe.Fall = 2
		u, one, _ := pair(t, probe, handler)
		await(t, "it is probed", func() bool { _, yes := asked.Load("GET /readyz " + apiName + ` "Bearer agent" ""`); return yes })
		connections := one.shakes.Load()
		status.Store(429)
		goal := probes.Load() + 5
		await(t, "some more probes", func() bool { return probes.Load() > goal })
		if slices.Contains(failed(u), true) {
			t.Error("one that has much to do was taken out")
		}
		if n := one.shakes.Load(); n > connections+1 {
			t.Errorf("probes made %d connections", n)
		}
		status.Store(500)
		await(t, "it is out", func() bool { return slices.Equal(failed(u), []bool{true, false}) })
		if state, _ := u.Endpoints(); !strings.Contains(state.Why(), "/readyz answers 500: etcd failed (2 probes failed)") {
			t.Errorf("why: %q", state.Why())
		}
		if n := one.requests.Load(); n != 0 {
			t.Fatalf("%d requests", n)
		}
		for range 4 {
			ask(t, u, wire.KubernetesAPI(), "/", asAlice)
		}
		if n := one.requests.Load(); n != 0 {
			t.Errorf("%d requests at one that is not ready", n)
		}
		status.Store(200)
		await(t, "it is back", func() bool { return !slices.Contains(failed(u), true) })
	})
	t.Run("D13: who may not ask takes nothing out, and an API server that has forgotten its rules is not ready", func(t *testing.T) {
		for _, silent := range []int{401, 403, 404} {
			var status atomic.Int64
			var probes [2]atomic.Int64 // of one, and of the other
			status.Store(int64(silent))
			u, one, _ := pair(t, quickly(upstream.ProbeHTTP), func(name string) http.HandlerFunc {
				n := &probes[0]
				if name == "two" {
					n = &probes[1]
				}
				return func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(int(status.Load()))
					n.Add(1)
				}
			})
			more := func(n int64) func() bool {
				a, b := probes[0].Load()+n, probes[1].Load()+n
				return func() bool { return probes[0].Load() >= a && probes[1].Load() >= b }
			}
			await(t, "both were probed five times", more(5))
			if slices.Contains(failed(u), true) {
				t.Errorf("%d took an endpoint out that was never ready", silent)
			}
			status.Store(200)
			await(t, "both are ready", more(3)) // the first may have been on its way before
			status.Store(int64(silent))
			await(t, "they are out", func() bool { return slices.Equal(failed(u), []bool{true, true}) })
			if state, _ := u.Endpoints(); !strings.Contains(state.Why(), fmt.Sprintf("%s: /readyz answers %d", one.address, silent)) {
				t.Errorf("why: %q", state.Why())
			}
		}
	})
	t.Run("D13: an anonymous probe of another path has no credential", func(t *testing.T) {
		var asked sync.Map
		probe := quickly(upstream.ProbeHTTP)
		probe.Anonymous, probe.Path = true, "/livez?exclude=etcd"
		pair(t, probe, func(string) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				asked.Store(r.RequestURI+"|"+r.Header.Get("Authorization"), true)
			}
		})
		await(t, "it is probed", func() bool { _, yes := asked.Load("/livez?exclude=etcd|"); return yes })
	})
	for _, kind := range []upstream.ProbeKind{upstream.ProbeTCP, upstream.ProbeTLS} {
		t.Run("D13: a probe of kind "+string(kind)+" finds what has died, and what is back", func(t *testing.T) {
			probe := quickly(kind)
			probe.Fall = 2
			u, one, _ := pair(t, probe, answers)
			one.kill()
			await(t, "it is out", func() bool { return slices.Equal(failed(u), []bool{true, false}) })
			one.start()
			await(t, "it is back", func() bool { return !slices.Contains(failed(u), true) })
			if n := one.requests.Load(); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("D13,D20: a probe of kind tls verifies, and one of kind tcp does not", func(t *testing.T) {
		_, foreign := certificate(t, apiName)
		for kind, want := range map[upstream.ProbeKind]bool{upstream.ProbeTLS: true, upstream.ProbeTCP: false} {
			u, _, _ := pair(t, quickly(kind), answers, func(cfg *upstream.Config) {
				cfg.KubernetesEndpoints = []string{newEndpoint(t, foreign, answers("impostor")).address}
			})
			await(t, "it is probed", func() bool { s, _ := u.Endpoints(); return s.Endpoints[0].Probed })
			if got := failed(u)[0]; got != want {
				t.Errorf("%s: failed %v", kind, got)
			}
		}
	})
	t.Run("D13: a probe of kind grpc asks grpc.health.v1", func(t *testing.T) {
		ca, cert := certificate(t, apiName)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ok(t, err)
		states := health.NewServer()
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})))
		healthv1.RegisterHealthServer(server, states)
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		t.Cleanup(func() {
			server.Stop()
			ok(t, <-served)
		})
		probe := quickly(upstream.ProbeGRPC)
		probe.Service, probe.Fall = "api", 1
		u, _, _ := pair(t, probe, answers, func(cfg *upstream.Config) {
			cfg.Kubernetes.CAData, cfg.KubernetesEndpoints = ca, []string{l.Addr().String()}
		})
		await(t, "an unknown service fails", func() bool { return failed(u)[0] })
		states.SetServingStatus("api", healthv1.HealthCheckResponse_SERVING)
		await(t, "it is healthy", func() bool { return !failed(u)[0] })
		states.SetServingStatus("api", healthv1.HealthCheckResponse_NOT_SERVING)
		await(t, "it is not", func() bool { s, _ := u.Endpoints(); return strings.Contains(s.Why(), "grpc health says NOT_SERVING") })
	})
	t.Run("what is wrong with a probe is said with its field", func(t *testing.T) {
		negative := metav1.Duration{Duration: -1}
		_, err := upstream.New(upstream.Config{
			KubernetesEndpoints: []string{"https://x"}, KubernetesBalance: "fast", Logger: slog.New(slog.DiscardHandler),
			Probe: upstream.Probe{Kind: "icmp", Path: "readyz", Interval: negative, Timeout: negative, Rise: -1, Fall: -1},
		})
		for _, says := range []string{"kubernetesEndpoints: [0]", "kubernetesBalance", "kubernetesProbe: kind", "path", "interval", "timeout", "rise", "fall"} {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v does not name %s", err, says)
			}
		}
	})
}
