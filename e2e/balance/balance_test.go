package balance

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// TestBalance runs in one order: each part needs what the one before has left.
func TestBalance(t *testing.T) {
	w := startWorld(t)
	one := w.startAgent(t, "agent-1")
	must(t, testbed.Poll(within(t, time.Minute), "a request through the tunnel", func(ctx context.Context) error {
		return w.request(ctx, http.MethodGet, versionPath, "")
	}))
	t.Run("servers", func(t *testing.T) { testServers(t, w) })
	t.Run("none", func(t *testing.T) { testNone(t, w) })
	t.Run("agents", func(t *testing.T) { testAgents(t, w, one) })
}

// shareTimes is how often a share is measured at most: a process that the machine holds up
// gets fewer requests for as long, and rightly so.
const shareTimes = 3

// shared wants each of two to get at least a part of what both get.
func shared(t *testing.T, part float64, measure func() (a, b float64)) {
	t.Helper()
	for range shareTimes {
		a, b := measure()
		if t.Logf("%.0f and %.0f requests", a, b); min(a, b) >= part*(a+b) {
			return
		}
	}
	t.Errorf("one got less than %.2f of the requests, %d times in a row", part, shareTimes)
}

const (
	readers = 24
	writers = 8
)

func testServers(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	load := w.startLoad(t, readers, writers)
	share := func(t *testing.T) {
		t.Helper()
		shared(t, 0.25, func() (a, b float64) {
			a, b = w.reviews(ctx, t, 0), w.reviews(ctx, t, 1)
			load.served(ctx, t, 800)
			return w.reviews(ctx, t, 0) - a, w.reviews(ctx, t, 1) - b
		})
	}
	t.Run("D12: two API servers behind one agent share the load of 32 clients", share)
	t.Run("D12,D13: when one is killed no GET fails, of the others at most those in flight on it, and the other serves at once", func(t *testing.T) {
		load.lost()
		load.longestGap()
		must(t, w.servers[1].APIServer.Kill9())
		load.served(ctx, t, 800)
		gap := load.longestGap()
		gets, posts := load.lost()
		t.Logf("%d of %d writers lost a request; nobody was served for %v at most", len(posts), writers, gap)
		for _, err := range gets {
			t.Errorf("a GET failed: %v", err)
		}
		if len(posts) > writers {
			t.Errorf("%d requests failed where %d at most were under way: %v", len(posts), writers, posts)
		}
		if err := testbed.InTime(ctx, w.culvert.CLI, gap, time.Second); err != nil {
			t.Errorf("nobody was served: %v", err)
		}
	})
	t.Run("D13: the one that is back gets its share again", func(t *testing.T) {
		must(t, w.servers[1].APIServer.Start(ctx))
		load.served(ctx, t, 800)
		must(t, testbed.Poll(ctx, "requests at the one that is back", func(context.Context) error {
			if n := w.reviews(ctx, t, 1); n < 50 {
				return fmt.Errorf("%.0f requests", n)
			}
			return nil
		}))
		share(t)
		gets, posts := load.lost()
		for _, err := range append(gets, posts...) {
			t.Errorf("a request failed while the API server came back: %v", err)
		}
	})
}

func testNone(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	t.Run("D13: where none works callers get 503 with the reason at once, first of the agent and then of the hub", func(t *testing.T) {
		must(t, w.servers[0].APIServer.Kill9())
		must(t, w.servers[1].APIServer.Kill9())
		killed := time.Now()
		looks := time.NewTicker(10 * time.Millisecond)
		defer looks.Stop()
		for ; ; <-looks.C {
			a, err := w.do(ctx, http.MethodGet, versionPath, "")
			must(t, err)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" ||
				!strings.Contains(a.body, "no endpoint of the API server is healthy") || !strings.Contains(a.body, "connection refused") {
				t.Fatalf("after %v: %d %v in %v: %s", time.Since(killed), a.status, a.header, a.took, a.body)
			}
			if err := testbed.InTime(ctx, w.culvert.CLI, a.took, time.Second); err != nil {
				t.Fatalf("after %v: %v", time.Since(killed), err)
			}
			if strings.Contains(a.body, "target: route: cluster "+clusterName) && strings.Contains(a.body, "3 probes failed") {
				t.Logf("after %v, in %v: %s", time.Since(killed).Round(time.Millisecond), a.took, a.body)
				break
			}
			if err := testbed.InTime(ctx, w.culvert.CLI, time.Since(killed), 10*time.Second); err != nil {
				t.Fatalf("the hub does not know: %v: %s", err, a.body)
			}
		}
		out, err := exec.CommandContext(ctx, w.culvert.CLI, "clusters", "list", "--state", filepath.Join(w.dir, "state")).CombinedOutput()
		must(t, err)
		if !strings.Contains(string(out), "away") {
			t.Errorf("culvert clusters list: %s", out)
		}
		text, err := scrape(ctx, w.metrics)
		must(t, err)
		if sum(text, "culvert_links_unready", `cluster="`+clusterName+`"`) != 1 {
			t.Error("culvert_links_unready is not 1")
		}
	})
	t.Run("D13: one that is back is used at once", func(t *testing.T) {
		must(t, w.servers[0].APIServer.Start(ctx))
		back := time.Now()
		must(t, testbed.Poll(ctx, "an answer", func(ctx context.Context) error { return w.request(ctx, http.MethodGet, versionPath, "") }))
		took := time.Since(back)
		t.Logf("%v after it was ready", took)
		if err := testbed.InTime(ctx, w.culvert.CLI, took, 3*time.Second); err != nil {
			t.Errorf("it was used late: %v", err)
		}
		must(t, w.servers[1].APIServer.Start(ctx))
	})
}

func testAgents(t *testing.T, w *world, one *agent) {
	ctx := within(t, 3*time.Minute)
	load := w.startLoad(t, 64, 0)
	load.served(ctx, t, 2000) // the pool is full of sessions to the first agent
	two := w.startAgent(t, "agent-2")
	must(t, testbed.Poll(ctx, "the second agent", func(context.Context) error {
		if two.requests(ctx, t) == 0 {
			return fmt.Errorf("it got no request")
		}
		return nil
	}))
	t.Run("D12,K2: a second agent gets its share of 64 clients as soon as it is there", func(t *testing.T) {
		shared(t, 0.35, func() (a, b float64) {
			a, b = one.requests(ctx, t), two.requests(ctx, t)
			load.served(ctx, t, 2000)
			return one.requests(ctx, t) - a, two.requests(ctx, t) - b
		})
	})
	t.Run("K2: an agent that drains gets nothing more, and nobody notices", func(t *testing.T) {
		load.lost()
		must(t, one.Stop(ctx))
		load.served(ctx, t, 500)
		gets, _ := load.lost()
		for _, err := range gets {
			t.Errorf("a request failed: %v", err)
		}
		must(t, testbed.Poll(ctx, "the end of its link", func(ctx context.Context) error {
			text, err := scrape(ctx, w.metrics)
			if n := sum(text, "culvert_links", `cluster="`+clusterName+`"`); err == nil && n != 1 {
				err = fmt.Errorf("%v links", n)
			}
			return err
		}))
	})
	load.end()
}
