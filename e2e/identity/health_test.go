package identity

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestHealth(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	metrics := func() string {
		text, err := the.hub.plain(ctx, "http://"+the.hub.metrics.Addr()+"/metrics")
		must(t, err)
		return text
	}
	t.Run("K10: liveness, readiness with its parts, and metrics of each kind are there", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz", "/readyz?verbose"} {
			if text, err := the.hub.plain(ctx, "http://"+the.hub.metrics.Addr()+path); err != nil || text == "" {
				t.Errorf("%s: %q %v", path, text, err)
			}
		}
		agent, err := the.hub.plain(ctx, "http://"+the.agentMetrics.Addr()+"/metrics")
		must(t, err)
		for of, words := range map[string][]string{
			metrics(): {"request", "session", "open", "bytes", "rtt", "stall", "first_byte", "queue", "authentication", "policy", "certificate"},
			agent:     {"dial", "session", "stall", "policy"},
		} {
			for _, words := range words {
				if !slices.ContainsFunc(strings.Split(of, "\n"), func(l string) bool {
					return strings.HasPrefix(l, "culvert_") && strings.Contains(l, words)
				}) {
					t.Errorf("no metric of %s", words)
				}
			}
		}
	})
	t.Run("K10: callers cannot make new series: whatever users, paths, clusters and codes they come with", func(t *testing.T) {
		series := func() map[string]bool {
			out := map[string]bool{}
			for l := range strings.Lines(metrics()) {
				if name, _, ok := strings.Cut(l, " "); ok && strings.HasPrefix(name, "culvert_") {
					out[name] = true
				}
			}
			return out
		}
		visit := func(round int) {
			for i := range 40 {
				token, err := the.good.token(ctx, "", claims{"email": fmt.Sprintf("user-%d-%d@example.com", round, i)})
				must(t, err)
				for _, c := range []call{
					{path: fmt.Sprintf("/managed/api/v1/namespaces/ns-%d-%d/pods", round, i), token: token},
					{path: fmt.Sprintf("/no-such-%d-%d/api", round, i), token: the.ada},
					{path: fmt.Sprintf("/managed/api/v1/namespaces/shop/services/svc-%d-%d:8443/proxy-service/", round, i), token: the.ada},
					{path: fmt.Sprintf("/managed/p-%d-%d", round, i), token: fmt.Sprint("bad-", round, i), method: "M" + strings.Repeat("X", round+i)},
				} {
					if _, err := the.hub.ask(ctx, c); err != nil {
						t.Error(err)
					}
				}
			}
		}
		visit(0)
		before := series()
		// What else comes about at the hub has series of its own, once: callers who made
		// some would make some each time.
		var fresh []string
		for round := 1; round <= 3 && (round == 1 || len(fresh) > 0); round++ {
			visit(round)
			after := series()
			fresh = nil
			for name := range after {
				if !before[name] {
					fresh = append(fresh, name)
				}
				for _, words := range []string{"user-", "ns-", "no-such", "svc-", "p-1", "example.com"} {
					if strings.Contains(name, words) {
						t.Errorf("a caller's words in a series: %s", name)
					}
				}
			}
			before = after
		}
		if len(fresh) > 0 {
			t.Errorf("new series each time: %q", fresh)
		}
	})
	t.Run("K10,N11: profiles and the live view are on the loopback alone, and not on the port for callers", func(t *testing.T) {
		if _, err := the.hub.plain(ctx, "http://"+the.hub.debug.Addr()+"/debug/pprof/goroutine?debug=1"); err != nil {
			t.Error(err)
		}
		for _, path := range []string{"/debug/pprof/", "/debug/sessions", "/-/debug/pprof/", "/metrics", "/debug/links"} {
			if got, err := the.hub.ask(ctx, call{path: path, token: the.root}); err == nil && got.status < 400 {
				t.Errorf("%s: %d %.300s", path, got.status, got.body)
			}
		}
		_, port, err := net.SplitHostPort(the.hub.debug.Addr())
		must(t, err)
		if conn, err := net.DialTimeout("tcp", net.JoinHostPort(testbed.HubAddress.String(), port), time.Second); err == nil {
			conn.Close()
			t.Error("the listener for debugging answers at the machine's address")
		}
		got, err := crossSite(ctx, "http://"+the.hub.debug.Addr()+"/debug/sessions")
		if err != nil || got == http.StatusOK {
			t.Errorf("a name that was rebound to the loopback reads it: %d %v", got, err)
		}
	})
}

// crossSite asks as a browser would that was told another name for the address.
func crossSite(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Host = "rebound.example:6060"
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
