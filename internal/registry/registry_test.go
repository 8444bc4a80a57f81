package registry_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request() mux.Request { return mux.Request{Target: wire.KubernetesAPI()} }

// known is a hub that knows the cluster "away" and cannot look up "broken".
func known(name string) (bool, error) {
	if name == "broken" {
		return false, errors.New("disk failure")
	}
	return name == "away", nil
}

func agent(cluster, instance string) registry.Agent {
	return registry.Agent{Cluster: cluster, Instance: instance, Remote: &net.TCPAddr{}}
}

func TestOpenWithoutAnAgent(t *testing.T) {
	for _, c := range []struct {
		title, cluster string
		code           wire.Code
		status         int
		wait           time.Duration
	}{
		{"O20: an unknown cluster is 404 at once", "unknown", wire.CodeNotFound, 404, 0},
		{"N12: a known cluster that is away is 503 with a time to retry, after a bounded wait", "away", wire.CodeUnavailable, 503, time.Second},
		{"O20: a store that fails is 503, not an unknown cluster", "broken", wire.CodeUnavailable, 503, 0},
	} {
		t.Run(c.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := registry.New(registry.Config{Known: known})
				start := time.Now()
				_, _, err := r.Open(t.Context(), c.cluster, request())
				f := fault.As(err)
				if f == nil || f.Code != c.code || f.HTTPStatus() != c.status || f.Hop != wire.HopHub || f.Cluster != c.cluster {
					t.Fatalf("got %v", err)
				}
				if (f.RetryAfter > 0) != (c.cluster == "away") {
					t.Errorf("retry after %v", f.RetryAfter)
				}
				if took := time.Since(start); took != c.wait {
					t.Errorf("took %v, want %v", took, c.wait)
				}
			})
		})
	}
	t.Run("N12: an agent that comes back within the wait serves the request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			p := muxtest.New(t)
			defer p.Stop()
			time.AfterFunc(300*time.Millisecond, func() { r.Add(agent("away", "a"), p.Dialler) })
			s, _, err := r.Open(t.Context(), "away", request())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestChoice(t *testing.T) {
	open := func(t *testing.T, r *registry.Registry) *mux.Session {
		t.Helper()
		s, _, err := r.Open(t.Context(), "c", request())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("K2: sessions go to the agent with the fewest, and never to one that drains", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		a, b := muxtest.New(t), muxtest.New(t)
		r.Add(agent("c", "a"), a.Dialler)
		r.Add(agent("c", "b"), b.Dialler)
		for range 4 {
			open(t, r)
		}
		if x, y := a.Dialler.Stats().Sessions, b.Dialler.Stats().Sessions; x != 2 || y != 2 {
			t.Fatalf("%d and %d sessions", x, y)
		}
		ctx, cancel := context.WithCancel(t.Context())
		drained := make(chan error, 1)
		go func() { drained <- a.Acceptor.Drain(ctx, wire.CodeDraining, "restart") }()
		for range 4 {
			open(t, r)
		}
		cancel()
		if err := <-drained; !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
		if n := b.Dialler.Stats().Sessions; n < 5 {
			t.Errorf("the other agent has %d sessions", n)
		}
	})
	t.Run("F7: a newer link of the same agent takes over, the older is told and ends", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		older, newer := muxtest.New(t), muxtest.New(t)
		removeOlder := r.Add(agent("c", "same"), older.Dialler)
		r.Add(agent("c", "same"), newer.Dialler)
		<-older.Acceptor.Done()
		var e *mux.Error
		if err := older.Acceptor.Err(); !errors.As(err, &e) || e.Code != wire.CodeReplaced {
			t.Errorf("the older link ended with %v", err)
		}
		removeOlder()
		open(t, r)
		if n := newer.Dialler.Stats().Sessions; n != 1 {
			t.Errorf("the newer link has %d sessions", n)
		}
		if agents := r.Agents("c"); len(agents) != 1 || agents[0].Generation != 2 {
			t.Errorf("agents: %+v", agents)
		}
	})
	t.Run("N12: a link that died under an open is passed over for another", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		dead, alive := muxtest.New(t), muxtest.New(t)
		r.Add(agent("c", "alive"), alive.Dialler)
		r.Add(agent("c", "dead"), dead.Dialler) // newer, so it would be chosen
		dead.Stop()
		open(t, r)
	})
	t.Run("K1: a refusal of the agent keeps its hop, code and words", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		p := muxtest.New(t, func(_, a *mux.Config) {
			a.Handler = func(_ context.Context, in *mux.Incoming) {
				in.Refuse(wire.CodeConnectionRefused, wire.HopTarget, "nobody listens")
			}
		})
		r.Add(agent("c", "a"), p.Dialler)
		_, _, err := r.Open(t.Context(), "c", request())
		f := fault.As(err)
		if f == nil || f.Hop != wire.HopTarget || f.Code != wire.CodeConnectionRefused || f.Err.Error() != "nobody listens" {
			t.Fatalf("got %v", err)
		}
	})
}
