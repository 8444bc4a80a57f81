package service

import (
	"net/netip"
	"sync"
	"time"
)

// Rates. A secret cannot be guessed, however fast: they bound the work that one
// source can make, and let a fleet behind one address join in a minute.
const (
	enrolEvery = 200 * time.Millisecond
	enrolBurst = 50
	// Renewals come from agents that are known, several of a cluster at most.
	renewEvery = time.Second
	renewBurst = 20
	// maxSources bounds what is remembered. Beyond it, new ones share one.
	maxSources = 4096
)

// limiter lets each key have one turn every so often, and some at once (the
// generic cell rate algorithm, ITU-T I.371).
type limiter struct {
	every time.Duration
	ahead time.Duration // how far beyond the present a key may have its turns

	mu   sync.Mutex
	next map[string]time.Time // when a key has used up what it had
}

func newLimiter(every time.Duration, burst int) *limiter {
	return &limiter{every: every, ahead: every * time.Duration(burst-1), next: make(map[string]time.Time)}
}

// take returns 0 when key has its turn at now, else how long it has to wait.
func (l *limiter) take(key string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.next[key]; !known && len(l.next) >= maxSources {
		l.forget(now)
		if len(l.next) >= maxSources {
			key = ""
		}
	}
	next := l.next[key]
	if next.Before(now) {
		next = now
	}
	if wait := next.Sub(now) - l.ahead; wait > 0 {
		return wait
	}
	l.next[key] = next.Add(l.every)
	return 0
}

// forget drops those that have all their turns again.
func (l *limiter) forget(now time.Time) {
	for key, next := range l.next {
		if !next.After(now) {
			delete(l.next, key)
		}
	}
}

// networkOf is what counts as one source: an IPv4 address, or the /64 that one
// host of IPv6 has to itself.
func networkOf(remote string) string {
	host, err := hostOf(remote)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ""
	}
	return prefix.String()
}
