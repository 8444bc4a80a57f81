package telemetry

import (
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// Live is what a process does right now: its requests and its sessions of raw
// bytes, with who asked for them. It is as large as what is under way. It is safe
// for concurrent use; a nil *Live keeps nothing.
type Live struct {
	mu   sync.Mutex
	head *activity // newest
	n    int
}

// activity is one thing under way. What changes is guarded by the Live's mu.
type activity struct {
	next, prev *activity

	kind      string
	start     time.Time
	user      string
	cluster   string
	target    string
	method    string
	path      string
	requestID string
	trace     string
	bytes     func() (received, sent int64) // may be nil
}

// NewLive returns an empty Live.
func NewLive() *Live { return &Live{} }

func (l *Live) enter(a activity) *activity {
	a.start = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := &a
	if entry.next = l.head; l.head != nil {
		l.head.prev = entry
	}
	l.head = entry
	l.n++
	return entry
}

func (l *Live) leave(a *activity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		l.head = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	l.n--
}

func (l *Live) route(a *activity, cluster string, target wire.Target) {
	text := target.String()
	l.mu.Lock()
	defer l.mu.Unlock()
	a.cluster, a.target = cluster, text
}

func (l *Live) user(a *activity, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.user = name
}

// snapshot returns what is under way, newest first, at most limit, of one cluster
// or with an empty name of all, and how many there are of all.
func (l *Live) snapshot(cluster string, limit int) (out []activity, all int) {
	if l == nil {
		return nil, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := l.head; a != nil && len(out) < limit; a = a.next {
		if cluster == "" || a.cluster == cluster {
			out = append(out, *a)
		}
	}
	return out, l.n
}

// userOf returns who asked for what a request id names, as far as it is under way.
func (l *Live) userOf(ids map[string]string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := l.head; a != nil; a = a.next {
		if _, wanted := ids[a.requestID]; wanted {
			ids[a.requestID] = a.user
		}
	}
}
