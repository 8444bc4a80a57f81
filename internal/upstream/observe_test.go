package upstream_test

import (
	"log/slog"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestObserver(t *testing.T) {
	server := newAPIServer(t)
	trap, names := newTrap(t), newNameServer(t)
	names.set("svc.ns.svc.cluster.local", addresses("169.254.169.254"))
	observed, err := telemetry.New(telemetry.Config{Role: telemetry.RoleAgent, Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	defer observed.Close()
	u := start(t, upstream.Config{
		Kubernetes: &server.rest, DNSServer: names.addr(), Observer: telemetry.Observer{Metrics: observed.Metrics()},
		Services: []upstream.ServiceRule{{Namespace: "ns", Name: "svc", Port: "80"}}, Addresses: []upstream.AddressRule{{Host: "127.0.0.1", Port: "*"}},
	})
	metric := func(t *testing.T, name string) int {
		t.Helper()
		w := httptest.NewRecorder()
		observed.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for line := range strings.Lines(w.Body.String()) {
			if value, found := strings.CutPrefix(line, name+" "); found {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				ok(t, err)
				return n
			}
		}
		return 0
	}
	const allowed, refused = `culvert_policy_decisions_total{outcome="allowed",role="agent"}`, `culvert_policy_decisions_total{outcome="refused",role="agent"}`
	for _, c := range []struct {
		what             string
		do               func(t *testing.T)
		allowed, refused int
	}{
		{"a request to the API server", func(t *testing.T) { ask(t, u, wire.KubernetesAPI(), "/", asAlice) }, 1, 0},
		{"one for somebody else", func(t *testing.T) { ask(t, u, wire.KubernetesAPI(), "/", "Impersonate-User: admin") }, 0, 1},
		{"a service without a rule", func(t *testing.T) { ask(t, u, wire.Service("ns", "other", "80", "http"), "/") }, 0, 1},
		{"an address that is dialled", func(t *testing.T) {
			ok(t, u.Check(wire.Address("127.0.0.1", trap.port)))
			conn, err := u.Dial(t.Context(), wire.Address("127.0.0.1", trap.port))
			ok(t, err)
			conn.Close()
		}, 1, 0},
		{"an open of another", func(t *testing.T) {
			if u.Check(wire.Address("127.0.0.2", trap.port)) == nil {
				t.Error("no error")
			}
		}, 0, 1},
	} {
		t.Run("N11: "+c.what+" counts once", func(t *testing.T) {
			wasAllowed, wasRefused := metric(t, allowed), metric(t, refused)
			c.do(t)
			if a, r := metric(t, allowed)-wasAllowed, metric(t, refused)-wasRefused; a != c.allowed || r != c.refused {
				t.Errorf("%d allowed and %d refused, want %d and %d", a, r, c.allowed, c.refused)
			}
		})
	}
	t.Run("N11: a name that leads astray counts as refused", func(t *testing.T) {
		was := metric(t, refused)
		ask(t, u, wire.Service("ns", "svc", "80", "http"), "/")
		if n := metric(t, refused) - was; n != 1 {
			t.Errorf("%d refused", n)
		}
	})
	t.Run("N11: dials are counted by kind", func(t *testing.T) {
		for _, series := range []string{`code="ok",kind="kubernetes"`, `code="ok",kind="tcp"`, `code="permission-denied",kind="service"`} {
			if metric(t, "culvert_dial_duration_seconds_count{"+series+"}") != 1 {
				t.Errorf("no dial with %s", series)
			}
		}
	})
}
