package registry_test

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/wire"
)

// judging is an agent's link that says what status has.
type judging struct {
	*muxtest.Pair

	status atomic.Pointer[wire.Status]
}

func newJudging(t *testing.T) *judging {
	j := &judging{}
	j.Pair = muxtest.New(t, func(_, a *mux.Config) { a.Status = j.status.Load })
	return j
}

func (j *judging) says(t *testing.T, r *wire.Readiness) {
	t.Helper()
	status := &wire.Status{Kubernetes: r}
	j.status.Store(status)
	j.Acceptor.StatusChanged()
	synctest.Wait()
	if got := j.Dialler.PeerStatus(); got == nil || (got.Kubernetes == nil) != (r == nil) || r != nil && *got.Kubernetes != *r {
		t.Fatalf("the hub knows %+v, the agent said %+v", got, r)
	}
}

func TestReadiness(t *testing.T) {
	down := func(why string) *wire.Readiness {
		return &wire.Readiness{Code: wire.CodeUnavailable, Message: why}
	}
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		a, b := newJudging(t), newJudging(t)
		r.Add(agent("c", "a"), a.Dialler)
		r.Add(agent("c", "b"), b.Dialler)
		open := func(target wire.Target) error {
			_, _, err := r.Open(t.Context(), "c", mux.Request{Target: target})
			return err
		}
		sessions := func() (int, int) { return a.Dialler.Stats().Sessions, b.Dialler.Stats().Sessions }
		a.says(t, down("10.0.0.1:6443: connection refused"))
		// D13: an agent that cannot reach its API server is chosen last for it.
		for range 4 {
			if err := open(wire.KubernetesAPI()); err != nil {
				t.Fatal(err)
			}
		}
		if x, y := sessions(); x != 0 || y != 4 {
			t.Errorf("sessions to Kubernetes: %d, %d", x, y)
		}
		// Services and addresses are not the API server.
		for range 4 {
			if err := open(wire.Address("db", 5432)); err != nil {
				t.Fatal(err)
			}
		}
		if x, y := sessions(); x != 4 || y != 4 {
			t.Errorf("sessions to addresses: %d, %d", x-0, y-4)
		}
		if err := open(wire.KubernetesTLS()); err != nil {
			t.Fatal(err)
		}
		if x, y := sessions(); x != 4 || y != 5 {
			t.Errorf("sessions of TLS: %d, %d", x, y)
		}
		// Where no agent can, that is said at once.
		b.says(t, down("10.0.0.2:6443: timed out"))
		start := time.Now()
		for _, target := range []wire.Target{wire.KubernetesAPI(), wire.KubernetesTLS()} {
			f := fault.As(open(target))
			if f == nil || f.Hop != wire.HopTarget || f.HTTPStatus() != 503 || f.RetryAfter != time.Second || f.Cluster != "c" || f.Target != target.String() ||
				!strings.Contains(f.Error(), "10.0.0.1:6443: connection refused; another agent: 10.0.0.2:6443: timed out") {
				t.Errorf("%v: got %v", target, f)
			}
		}
		if _, _, err := r.Choose(t.Context(), "c", wire.KubernetesAPI()); fault.As(err) == nil {
			t.Errorf("chosen: %v", err)
		}
		if _, err := r.Cold(t.Context(), "c", request(), time.Second, func(error) {}); fault.As(err) == nil {
			t.Errorf("cold: %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if err := open(wire.Service("a", "b", "", "https")); err != nil {
			t.Error(err)
		}
		if why := r.Agents("c")[0].KubernetesFailure(); why != "10.0.0.1:6443: connection refused" {
			t.Errorf("shown as %q", why)
		}
		// D20: not verified is not the same as away, and waiting does not help.
		untrusted := &wire.Readiness{Code: wire.CodeTLSFailure, Message: "certificate signed by unknown authority"}
		a.says(t, untrusted)
		b.says(t, untrusted)
		if f := fault.As(open(wire.KubernetesAPI())); f == nil || f.Code != wire.CodeTLSFailure || f.RetryAfter != 0 || strings.Contains(f.Error(), "another agent") {
			t.Errorf("got %v", f)
		}
		// Of the codes that an agent may send, the hub takes no other.
		a.says(t, &wire.Readiness{Code: wire.CodeUnauthenticated})
		if f := fault.As(open(wire.KubernetesAPI())); f == nil || f.Code != wire.CodeUnavailable {
			t.Errorf("got %v", f)
		}
		a.says(t, &wire.Readiness{Ready: true})
		if err := open(wire.KubernetesAPI()); err != nil {
			t.Error(err)
		}
		// Nothing said is ready, which is what older agents are.
		b.says(t, nil)
		if why := r.Agents("c")[1].KubernetesFailure(); why != "" {
			t.Errorf("shown as %q", why)
		}
		a.Stop()
		b.Stop()
	})
}

func TestChoose(t *testing.T) {
	t.Run("D12,K2: requests count, and not the sessions that wait for one", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		a, b := muxtest.New(t), muxtest.New(t)
		r.Add(agent("c", "a"), a.Dialler)
		first := func() uint64 { return r.Agents("c")[0].Generation }()
		// Ten sessions that were used, and wait.
		for i := range 10 {
			generation, done, err := r.Choose(t.Context(), "c", wire.KubernetesAPI())
			if err != nil || generation != first {
				t.Fatalf("%d, %v", generation, err)
			}
			conn, err := r.Cold(registry.Prefer(t.Context(), generation), "c", request(), time.Second, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			done()
			done() // once is enough
		}
		r.Add(agent("c", "b"), b.Dialler)
		got := map[uint64]int{}
		for range 64 {
			generation, _, err := r.Choose(t.Context(), "c", wire.KubernetesAPI())
			if err != nil {
				t.Fatal(err)
			}
			got[generation]++
		}
		if got[first] != 32 || len(got) != 2 {
			t.Errorf("64 requests at a time: %v", got)
		}
	})
	t.Run("K2: an agent that drains is not chosen, whatever waits at it", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		a, b := muxtest.New(t), muxtest.New(t)
		r.Add(agent("c", "a"), a.Dialler)
		r.Add(agent("c", "b"), b.Dialler)
		a.Open(t) // so that the drain waits
		drained := make(chan error, 1)
		go func() { drained <- a.Acceptor.Drain(t.Context(), wire.CodeDraining, "restart") }()
		for !a.Dialler.Stats().Draining {
			time.Sleep(time.Millisecond)
		}
		for range 8 {
			generation, done, err := r.Choose(t.Context(), "c", wire.KubernetesAPI())
			if err != nil || generation != 2 {
				t.Errorf("%d, %v", generation, err)
			}
			done()
		}
		conn, err := r.Cold(registry.Prefer(t.Context(), 1), "c", request(), time.Second, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		if n := b.Dialler.Stats().Sessions; n != 1 {
			t.Errorf("the other agent has %d sessions", n)
		}
		a.Stop()
		<-drained
	})
}
