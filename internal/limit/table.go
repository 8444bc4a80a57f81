package limit

import (
	"crypto/sha256"
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The names of the bounds in the configuration.
const (
	boundRate       = "requestsPerSecond"
	boundConcurrent = "concurrent"
	boundSessions   = "sessions"
)

// entry is what is known of one key.
type entry struct {
	key    string
	tokens *rate.Limiter // nil without a rate
	used   time.Time
	held   [kinds]int
	// prev and next are the neighbours among those that hold nothing.
	prev, next *entry
}

// maxKey bounds the memory of a key, in bytes; of a longer one its digest is kept.
const maxKey = 256

// table has the keys of one scope.
type table struct {
	bounds Bounds
	keys   int
	// refill is how long an unused key needs to have all its tokens again.
	refill time.Duration

	mu     sync.Mutex
	known  map[string]*entry
	shared *entry
	// idle is the ring of the entries that hold nothing, in the order of their
	// last use: idle.next is the one that was used longest ago.
	idle entry
}

func newTable(b Bounds, keys int) *table {
	t := &table{bounds: b, keys: keys, known: make(map[string]*entry)}
	t.idle.prev, t.idle.next = &t.idle, &t.idle
	if r := b.RequestsPerSecond; r > 0 {
		t.refill = time.Duration(min(float64(b.burst())/r*float64(time.Second), math.MaxInt64/2))
	}
	t.shared = t.newEntry("")
	return t
}

func (t *table) newEntry(key string) *entry {
	e := &entry{key: key}
	if t.bounds.RequestsPerSecond > 0 {
		e.tokens = rate.NewLimiter(rate.Limit(t.bounds.RequestsPerSecond), t.bounds.burst())
	}
	return e
}

// admit returns the entry that holds a place for kind, or why there is none.
func (t *table) admit(key string, kind Kind, now time.Time) (*entry, *RefusalError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(key, now)
	e.used = now
	if r := t.refuse(e, kind, now); r != nil {
		t.rest(e)
		return nil, r
	}
	t.wake(e)
	e.held[kind]++
	return e, nil
}

func (t *table) refuse(e *entry, kind Kind, now time.Time) *RefusalError {
	// Places first: a caller that has none uses no tokens up by asking.
	bound, most := boundConcurrent, t.bounds.Concurrent
	if kind == Session {
		bound, most = boundSessions, t.bounds.Sessions
	}
	if most > 0 && e.held[kind] >= most {
		return &RefusalError{Bound: bound, Limit: float64(most), RetryAfter: concurrencyRetry}
	}
	if e.tokens == nil || e.tokens.AllowN(now, 1) {
		return nil
	}
	perSecond := t.bounds.RequestsPerSecond
	wait := (1 - e.tokens.TokensAt(now)) / perSecond * float64(time.Second)
	return &RefusalError{Bound: boundRate, Limit: perSecond, RetryAfter: time.Duration(max(1, min(wait, math.MaxInt64/2)))}
}

// entry returns that of key, a new one where there is room, or the shared one.
func (t *table) entry(key string, now time.Time) *entry {
	if len(key) > maxKey {
		digest := sha256.Sum256([]byte(key))
		key = string(digest[:])
	}
	if e := t.known[key]; e != nil {
		return e
	}
	if len(t.known) >= t.keys && !t.forget(now) {
		return t.shared
	}
	// A copy: the name of a cluster is a part of a path, for example.
	key = strings.Clone(key)
	e := t.newEntry(key)
	t.known[key] = e
	return e
}

// forget makes room by the key that was used longest ago, if it is as good as new.
func (t *table) forget(now time.Time) bool {
	oldest := t.idle.next
	if oldest == &t.idle || now.Sub(oldest.used) < t.refill {
		return false
	}
	t.wake(oldest)
	delete(t.known, oldest.key)
	return true
}

// release gives a place back.
func (t *table) release(e *entry, kind Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.held[kind]--
	t.rest(e)
}

// rest puts an entry that holds nothing at the end of the ring.
func (t *table) rest(e *entry) {
	t.wake(e)
	if e == t.shared || e.held != [kinds]int{} {
		return
	}
	e.prev, e.next = t.idle.prev, &t.idle
	e.prev.next, e.next.prev = e, e
}

// wake takes an entry out of the ring.
func (*table) wake(e *entry) {
	if e.next != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next = nil, nil
	}
}
