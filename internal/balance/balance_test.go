package balance_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/balance"
)

// world is what the endpoints of a test do.
type world struct {
	mu      sync.Mutex
	broken  map[string]error
	hangs   map[string]bool
	probes  map[string][]time.Duration // when, since start
	names   map[string][]string
	nameErr error
	states  []balance.State
	start   time.Time
}

func newWorld() *world {
	return &world{broken: map[string]error{}, hangs: map[string]bool{}, probes: map[string][]time.Duration{}, names: map[string][]string{}, start: time.Now()}
}

func (w *world) probe(ctx context.Context, address string) error {
	w.mu.Lock()
	w.probes[address] = append(w.probes[address], time.Since(w.start))
	err, hangs := w.broken[address], w.hangs[address]
	w.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (w *world) resolve(_ context.Context, host string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.names[host]), w.nameErr
}

func (w *world) do(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// probed returns when an endpoint was probed since the last call.
func (w *world) probed(address string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.probes[address]
	w.probes[address] = nil
	return out
}

func (w *world) told() []balance.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.states
	w.states = nil
	return out
}

// run starts a set under the clock of synctest and ends it with the test.
func (w *world) run(t *testing.T, cfg balance.Config) *balance.Set {
	t.Helper()
	cfg.Probe, cfg.Logger = w.probe, slog.New(slog.DiscardHandler)
	cfg.Changed = func(s balance.State) { w.do(func() { w.states = append(w.states, s) }) }
	set, err := balance.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); set.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return set
}

func pick(t *testing.T, set *balance.Set, tried ...*balance.Lease) *balance.Lease {
	t.Helper()
	lease, err := set.Pick(t.Context(), tried...)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func wantNone(t *testing.T, set *balance.Set, says ...string) {
	t.Helper()
	_, err := set.Pick(t.Context())
	_, ok := errors.AsType[*balance.NoneError](err)
	if !ok {
		t.Fatalf("got %v, want that none works", err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

const a, b, c = "10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443"

var refused = &net.OpError{Op: "dial", Err: fmt.Errorf("connect: %w", syscall.ECONNREFUSED)}

func TestMethods(t *testing.T) {
	fill := func(t *testing.T, method balance.Method, n int, keep func(address string) bool) map[string]int {
		t.Helper()
		set, err := balance.New(balance.Config{Endpoints: []string{a, b, c}, Method: method, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for range n {
			lease := pick(t, set)
			got[lease.Address()]++
			if !keep(lease.Address()) {
				lease.Done()
				lease.Done() // once is enough
			}
		}
		return got
	}
	t.Run("the least outstanding gets the next, and equals take turns", func(t *testing.T) {
		if got := fill(t, "", 30, func(string) bool { return true }); !maps.Equal(got, map[string]int{a: 10, b: 10, c: 10}) {
			t.Errorf("work that stays: %v", got)
		}
		if got := fill(t, balance.LeastOutstanding, 30, func(string) bool { return false }); !maps.Equal(got, map[string]int{a: 10, b: 10, c: 10}) {
			t.Errorf("work that is over at once: %v", got)
		}
		// The one whose work stays gets nothing more while others have less.
		if got := fill(t, balance.LeastOutstanding, 31, func(address string) bool { return address == a }); got[a] != 1 {
			t.Errorf("one is slow: %v", got)
		}
	})
	t.Run("round robin does not look at what is under way", func(t *testing.T) {
		if got := fill(t, balance.RoundRobin, 30, func(address string) bool { return address == a }); !maps.Equal(got, map[string]int{a: 10, b: 10, c: 10}) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("of two at random the one with less to do is taken", func(t *testing.T) {
		got := fill(t, balance.Random2, 300, func(address string) bool { return address == a })
		if got[a] > 5 || got[b] < 90 || got[c] < 90 {
			t.Errorf("one is slow: %v", got)
		}
	})
	t.Run("those that were tried are passed over", func(t *testing.T) {
		set, err := balance.New(balance.Config{Endpoints: []string{a, b}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		one := pick(t, set)
		two := pick(t, set, one)
		if one.Address() == two.Address() {
			t.Errorf("%s twice", one.Address())
		}
		if _, err := set.Pick(t.Context(), one, two); err == nil {
			t.Error("a third of two")
		}
		one.Failed(refused) // nothing would bring it back
		if state := set.State(); state.Endpoints[0].Failed || state.Endpoints[1].Failed {
			t.Errorf("without probes an endpoint was taken out: %+v", state)
		}
	})
}

func TestProbes(t *testing.T) {
	play := func(title string, f func(t *testing.T, w *world)) {
		t.Run(title, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, newWorld()) }) })
	}
	config := balance.Config{Endpoints: []string{a, b}, Interval: 10 * time.Second, Rise: 2, Fall: 3}
	play("an endpoint that works is probed at the start and then once an interval, never at the same beat", func(t *testing.T, w *world) {
		w.run(t, config)
		time.Sleep(1000 * time.Second)
		times := w.probed(a)
		if len(times) < 95 || len(times) > 106 || times[0] != 0 {
			t.Fatalf("%d probes, the first after %v", len(times), times[0])
		}
		waits := map[time.Duration]bool{}
		for i := range times[1:] {
			wait := times[i+1] - times[i]
			if wait < 9*time.Second || wait > 11*time.Second {
				t.Errorf("a wait of %v", wait)
			}
			waits[wait] = true
		}
		if len(waits) < 50 {
			t.Errorf("only %d different waits", len(waits))
		}
		if told := w.told(); len(told) != 1 || !told[0].Ready {
			t.Errorf("told %+v", told)
		}
	})
	play("one takes Fall failures to be taken out, and Rise successes to come back", func(t *testing.T, w *world) {
		set := w.run(t, config)
		time.Sleep(time.Second)
		w.do(func() { w.broken[a] = refused })
		w.probed(a)
		state := func() balance.Status { return set.State().Endpoints[0] }
		for failed := 1; failed <= 3; failed++ {
			for len(w.probed(a)) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			synctest.Wait()
			if s := state(); s.Failed != (failed == 3) || s.FailedProbes != failed {
				t.Fatalf("after %d failures: %+v", failed, s)
			}
		}
		for range 20 {
			if lease := pick(t, set); lease.Address() != b {
				t.Fatal("the one that failed got work")
			}
		}
		w.do(func() { delete(w.broken, a) })
		start := time.Now()
		for state().Failed {
			time.Sleep(10 * time.Millisecond)
		}
		if took, probes := time.Since(start), len(w.probed(a)); took > 2300*time.Millisecond || probes != 2 {
			t.Errorf("it came back after %v and %d probes", took, probes)
		}
		if lease := pick(t, set); lease.Address() != a {
			t.Error("the one that is back and has nothing to do got nothing")
		}
	})
	play("the first probe decides about what was never known to work", func(t *testing.T, w *world) {
		w.do(func() { w.broken[a], w.broken[b] = refused, errors.New("bad\ncertificate") })
		set := w.run(t, config)
		synctest.Wait()
		wantNone(t, set, a+": connection refused (1 probe failed)", b+": bad certificate (1 probe failed)")
		time.Sleep(5 * time.Second)
		wantNone(t, set, a+": connection refused (3 probes failed)")
		told := w.told()
		if len(told) == 0 || len(told) > 8 || told[len(told)-1].Ready {
			t.Errorf("told %d times", len(told))
		}
		time.Sleep(time.Hour)
		if told := w.told(); len(told) != 0 {
			t.Errorf("told %d times more while nothing changed", len(told))
		}
	})
	play("a connection that fails takes it out at once, and a good probe brings it back", func(t *testing.T, w *world) {
		set := w.run(t, balance.Config{Endpoints: []string{a}, Rise: 1})
		time.Sleep(3 * time.Second)
		w.told()
		lease := pick(t, set)
		w.do(func() { w.broken[a] = refused })
		lease.Failed(refused)
		wantNone(t, set, a+": connection refused")
		synctest.Wait()
		wantNone(t, set, "(1 probe failed)")
		w.do(func() { delete(w.broken, a) })
		// Who asks has it looked at sooner.
		wantNone(t, set)
		time.Sleep(300 * time.Millisecond)
		pick(t, set).Done()
		lease.Done()
		if told := w.told(); len(told) < 2 || told[0].Ready || !told[len(told)-1].Ready {
			t.Errorf("told %+v", told)
		}
	})
	play("many who ask cause no more than four probes a second", func(t *testing.T, w *world) {
		w.do(func() { w.broken[a] = refused })
		set := w.run(t, balance.Config{Endpoints: []string{a}})
		for range 10_000 {
			_, _ = set.Pick(t.Context()) // that there is none is known
			time.Sleep(time.Millisecond)
		}
		if n := len(w.probed(a)); n < 30 || n > 42 {
			t.Errorf("%d probes in 10 s", n)
		}
	})
	play("a probe without an answer fails after its timeout", func(t *testing.T, w *world) {
		w.do(func() { w.hangs[a] = true })
		set := w.run(t, balance.Config{Endpoints: []string{a}, Timeout: 2 * time.Second})
		time.Sleep(1900 * time.Millisecond)
		pick(t, set).Done()
		time.Sleep(200 * time.Millisecond)
		wantNone(t, set, a+": timed out")
	})
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.names["api.example"] = []string{"10.0.0.2", "10.0.0.1"}
		set := w.run(t, balance.Config{Endpoints: []string{"api.example:6443", c}, Resolve: w.resolve})
		addresses := func() []string {
			var all []string
			for _, e := range set.State().Endpoints {
				all = append(all, e.Address)
			}
			return all
		}
		pick(t, set).Done() // waits for the first lookup
		if got := addresses(); !slices.Equal(got, []string{a, b, c}) {
			t.Errorf("got %v", got)
		}
		w.do(func() { w.names["api.example"] = []string{"10.0.0.2"} })
		time.Sleep(12 * time.Second)
		if got := addresses(); !slices.Equal(got, []string{b, c}) {
			t.Errorf("after one has left: %v", got)
		}
		w.do(func() { w.nameErr = errors.New("server failure") })
		time.Sleep(time.Minute)
		if got := addresses(); !slices.Equal(got, []string{b, c}) {
			t.Errorf("while DNS fails: %v", got)
		}
		w.do(func() { w.nameErr, w.names["api.example"] = nil, []string{"10.0.0.1"} })
		time.Sleep(2 * time.Second)
		if got := addresses(); !slices.Equal(got, []string{a, c}) {
			t.Errorf("after DNS is back: %v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.nameErr = &net.DNSError{Err: "no such host", Name: "api.example", IsNotFound: true}
		set := w.run(t, balance.Config{Endpoints: []string{"api.example:6443"}, Resolve: w.resolve})
		wantNone(t, set, "no such name api.example")
		w.do(func() { w.nameErr, w.names["api.example"] = nil, []string{"10.0.0.1"} })
		time.Sleep(2 * time.Second)
		pick(t, set).Done()
	})
}

func TestWhy(t *testing.T) {
	var s balance.State
	for i := range balance.MaxEndpoints {
		s.Endpoints = append(s.Endpoints, balance.Status{
			Address: fmt.Sprintf("10.0.0.%d:6443", i), Failed: true, Err: errors.New(strings.Repeat("long\x1b[2J ", 1000)), FailedProbes: 3,
		})
	}
	why := s.Why()
	if len(why) > 1000 || strings.ContainsAny(why, "\x1b\n") || !strings.HasSuffix(why, "; and 60 more") {
		t.Errorf("%d bytes: %q", len(why), why)
	}
}

func TestValidate(t *testing.T) {
	_, err := balance.New(balance.Config{Endpoints: []string{a, a, "x", "https://a:1", ":1", "a:0", "a:https"}, Method: "fastest", Interval: -1, Timeout: -1, Rise: -1, Fall: -1})
	for _, says := range []string{"[1]: 10.0.0.1:6443 is there twice", `[2]: "x"`, `[3]: "https://a:1"`, `[4]: ":1"`, `[5]: "a:0"`, `[6]: "a:https"`, "fastest", "interval", "timeout", "rise", "fall", "logger"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
	if _, err := balance.New(balance.Config{Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("no endpoint is taken")
	}
}
