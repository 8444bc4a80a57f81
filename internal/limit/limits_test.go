package limit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func limits(t *testing.T, cfg Config) *Limits {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// once admits one request and ends it.
func once(l *Limits, scope Scope, key string) error {
	var h Hold
	defer h.Release()
	return l.Admit(&h, scope, key, Request)
}

func retryAfter(t *testing.T, err error) time.Duration {
	t.Helper()
	f := fault.As(err)
	if f == nil || f.Hop != wire.HopHub || f.HTTPStatus() != http.StatusTooManyRequests || f.Reason() != "TooManyRequests" {
		t.Fatalf("%v is no refusal of the hub with 429", err)
	}
	if r := AsRefusal(err); r == nil || r.RetryAfter != f.RetryAfter || f.RetryAfter <= 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	return f.RetryAfter
}

func TestRate(t *testing.T) {
	t.Run("N10: a caller over its rate gets 429 and comes back when it is told to", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limits(t, Config{User: &Bounds{RequestsPerSecond: 2, Burst: 3}})
			for i := range 3 {
				if err := once(l, User, "alice"); err != nil {
					t.Fatalf("request %d of the burst: %v", i, err)
				}
			}
			err := once(l, User, "alice")
			wait := retryAfter(t, err)
			if wait != 500*time.Millisecond {
				t.Errorf("retry after %v", wait)
			}
			if want := "hub: limit: too many requests: more than 2 requests per second of this user"; err.Error() != want {
				t.Errorf("%q, want %q", err, want)
			}
			if err := once(l, User, "bob"); err != nil {
				t.Errorf("another caller: %v", err)
			}
			if err := once(l, Cluster, "alice"); err != nil {
				t.Errorf("a scope without bounds: %v", err)
			}
			time.Sleep(wait - time.Millisecond)
			retryAfter(t, once(l, User, "alice"))
			time.Sleep(time.Millisecond)
			if err := once(l, User, "alice"); err != nil {
				t.Errorf("after the wait: %v", err)
			}
			retryAfter(t, once(l, User, "alice"))
		})
	})
	t.Run("N10: without a burst, the requests of one second may come at once, and at least one", func(t *testing.T) {
		for rate, want := range map[float64]int{0.1: 1, 1: 1, 2.5: 3, 1000: 1000} {
			synctest.Test(t, func(t *testing.T) {
				l := limits(t, Config{Remote: &Bounds{RequestsPerSecond: rate}})
				n := 0
				for once(l, Remote, "192.0.2.1") == nil {
					n++
				}
				if n != want {
					t.Errorf("rate %v: %d at once, want %d", rate, n, want)
				}
			})
		}
	})
	t.Run("N10: a very small rate has a wait and no overflow", func(t *testing.T) {
		l := limits(t, Config{User: &Bounds{RequestsPerSecond: 1e-300}})
		if err := once(l, User, "a"); err != nil {
			t.Fatal(err)
		}
		retryAfter(t, once(l, User, "a"))
	})
}

func TestConcurrency(t *testing.T) {
	l := limits(t, Config{User: &Bounds{Concurrent: 2, Sessions: 1}, Cluster: &Bounds{Concurrent: 3}})
	t.Run("N10: requests and sessions under way are counted apart, and given back", func(t *testing.T) {
		var a, b, c, s, s2 Hold
		for _, h := range []*Hold{&a, &b} {
			if err := l.Admit(h, User, "alice", Request); err != nil {
				t.Fatal(err)
			}
		}
		err := l.Admit(&c, User, "alice", Request)
		if retryAfter(t, err) != time.Second || !strings.Contains(err.Error(), "2 requests under way") {
			t.Errorf("the third request: %v", err)
		}
		if err := l.Admit(&s, User, "alice", Session); err != nil {
			t.Errorf("a session beside the requests: %v", err)
		}
		if err := l.Admit(&s2, User, "alice", Session); err == nil || !strings.Contains(err.Error(), "1 sessions open") {
			t.Errorf("the second session: %v", err)
		}
		a.Release()
		a.Release()
		if err := l.Admit(&c, User, "alice", Request); err != nil {
			t.Errorf("after one has ended: %v", err)
		}
		for _, h := range []*Hold{&b, &c, &s, &s2} {
			h.Release()
		}
		for scope, table := range l.tables {
			if table == nil {
				continue
			}
			for key, e := range table.known {
				if e.held != [kinds]int{} {
					t.Errorf("%v %q still holds %v", Scope(scope), key, e.held)
				}
			}
		}
	})
	t.Run("N10: a refusal of one scope keeps nothing of the others once it is released", func(t *testing.T) {
		var full [3]Hold
		for i := range full {
			if err := l.Admit(&full[i], Cluster, "edge", Request); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			var h Hold
			if err := l.Admit(&h, User, "bob", Request); err != nil {
				t.Fatalf("the user has places: %v", err)
			}
			if r := AsRefusal(l.Admit(&h, Cluster, "edge", Request)); r == nil || r.Scope != Cluster || r.Bound != "concurrent" {
				t.Fatalf("%+v", r)
			}
			h.Release()
		}
		for i := range full {
			full[i].Release()
		}
	})
	t.Run("no more are under way at a time than the bound, whoever races", func(t *testing.T) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		now, most := 0, 0
		for range 8 {
			wg.Go(func() {
				for range 200 {
					var h Hold
					if l.Admit(&h, User, "carol", Request) != nil {
						continue
					}
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					mu.Lock()
					now--
					mu.Unlock()
					h.Release()
				}
			})
		}
		wg.Wait()
		if most > 2 || now != 0 {
			t.Errorf("%d at a time, %d left", most, now)
		}
	})
	t.Run("a second key of a scope in one Hold is a defect", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		var h Hold
		defer h.Release()
		_ = l.Admit(&h, User, "a", Request)
		_ = l.Admit(&h, User, "b", Request)
	})
}

func TestKeysAreBounded(t *testing.T) {
	const keys = LeastKeys
	t.Run("N10: beyond the bound new keys share one, and keys that have all of their tokens make room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limits(t, Config{Keys: keys, Remote: &Bounds{RequestsPerSecond: 1, Burst: 2, Concurrent: 5}})
			table := l.tables[Remote]
			var held Hold
			if err := l.Admit(&held, Remote, "held", Request); err != nil {
				t.Fatal(err)
			}
			refused := 0
			for i := range 100 * keys {
				if once(l, Remote, fmt.Sprint(i)) != nil {
					refused++
				}
			}
			if len(table.known) != keys {
				t.Errorf("%d keys are known", len(table.known))
			}
			if want := 100*keys - (keys - 1) - 2; refused != want {
				t.Errorf("%d were refused, want %d: all but one for each key that is known and two of the shared one", refused, want)
			}
			if once(l, Remote, "0") != nil || once(l, Remote, "0") == nil {
				t.Error("a known key lost what it had, or got a fresh start")
			}
			time.Sleep(2 * time.Second)
			for i := range keys - 1 {
				if err := once(l, Remote, fmt.Sprint("later ", i)); err != nil {
					t.Errorf("later %d: %v", i, err)
				}
			}
			if table.known["held"] == nil || len(table.known) != keys {
				t.Errorf("a key with a request under way was forgotten, or %d keys are known", len(table.known))
			}
			held.Release()
		})
	})
	t.Run("N10: long keys are told apart and kept short", func(t *testing.T) {
		l := limits(t, Config{User: &Bounds{RequestsPerSecond: 1, Burst: 1}})
		long := strings.Repeat("x", 1<<20)
		if err := errors.Join(once(l, User, long+"a"), once(l, User, long+"b")); err != nil {
			t.Error(err)
		}
		if once(l, User, long+"a") == nil {
			t.Error("a long key has no bound")
		}
		for key := range l.tables[User].known {
			if len(key) > maxKey {
				t.Errorf("a key of %d bytes is kept", len(key))
			}
		}
	})
	t.Run("whatever the order of use, the ring has exactly the keys that hold nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limits(t, Config{Keys: keys, User: &Bounds{RequestsPerSecond: 5, Concurrent: 2, Sessions: 1}})
			rng := rand.New(rand.NewPCG(1, 2))
			var open []*Hold
			for range 5000 {
				switch rng.IntN(5) {
				case 0, 1, 2:
					h := new(Hold)
					if l.Admit(h, User, fmt.Sprint(rng.IntN(3*keys)), Kind(rng.IntN(int(kinds)))) == nil {
						open = append(open, h)
					}
				case 3:
					if len(open) > 0 {
						i := rng.IntN(len(open))
						open[i].Release()
						open[i] = open[len(open)-1]
						open = open[:len(open)-1]
					}
				default:
					time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
				}
				check(t, l.tables[User])
			}
			for _, h := range open {
				h.Release()
			}
			check(t, l.tables[User])
		})
	})
}

func check(t *testing.T, table *table) {
	t.Helper()
	inRing := map[*entry]bool{}
	for e := table.idle.next; e != &table.idle; e = e.next {
		if inRing[e] || e.prev.next != e || table.known[e.key] != e || e.held != [kinds]int{} {
			t.Fatalf("entry %q does not belong where it is", e.key)
		}
		inRing[e] = true
	}
	for key, e := range table.known {
		if idle := e.held == [kinds]int{}; idle != inRing[e] {
			t.Fatalf("entry %q: idle %v, in the ring %v", key, idle, inRing[e])
		}
	}
	if len(table.known) > table.keys {
		t.Fatalf("%d keys", len(table.known))
	}
}

func TestNothingIsBounded(t *testing.T) {
	for name, cfg := range map[string]Config{"zero": {}, "empty bounds": {User: &Bounds{}, Keys: 100}} {
		l := limits(t, cfg)
		if l != nil {
			t.Errorf("%s: %+v", name, l)
		}
		if err := once(l, User, "a"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.Body(&http.Request{ContentLength: 1 << 40}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	bounds := &Bounds{RequestsPerSecond: 1e9, Burst: 1 << 30, Concurrent: 1 << 20}
	l, err := New(Config{Remote: bounds, User: bounds, Cluster: bounds})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var h Hold
		if l.Admit(&h, Remote, "192.0.2.1", Request) != nil || l.Admit(&h, User, "alice", Request) != nil ||
			l.Admit(&h, Cluster, "edge-1", Request) != nil {
			b.Fatal("refused")
		}
		h.Release()
	}
}
