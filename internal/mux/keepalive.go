package mux

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// keeper looks after a link again and again: it sends pings, gives the link up when the
// peer is silent or does not say HELLO, and reclaims credit from idle sessions while the
// budget is short. Between its looks it has no goroutine.
type keeper struct {
	link  *Link
	began time.Time

	mu    sync.Mutex // held while it looks; guards what follows
	timer *time.Timer
	over  bool
}

// keep begins to look after the link. The caller stops it, after which it does not look
// any more.
func (l *Link) keep() (stop func()) {
	k := &keeper{link: l, began: time.Now()}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = time.AfterFunc(k.next(k.began), k.look)
	return k.stop
}

func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.timer.Stop()
}

// look does what is due. A timer calls it, in a goroutine that ends with it.
func (k *keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	l, now := k.link, time.Now()
	if !l.greeted() && now.Sub(k.began) >= l.cfg.HelloTimeout {
		k.over = true
		l.fail(protocolError(fmt.Sprintf("no HELLO within %v", l.cfg.HelloTimeout)))
		return
	}
	if silence := l.keepalive(now); silence > 0 {
		k.over = true
		l.fail(&Error{
			Code: wire.CodeLinkLost, Hop: wire.HopLink,
			Message: fmt.Sprintf("nothing was received for %v", silence.Round(time.Millisecond)),
		})
		return
	}
	k.timer.Reset(k.next(now))
}

// next returns how long after now a look is due again: sooner than usual where a silence
// would become too long before, so that a dead peer is given up on time.
func (k *keeper) next(now time.Time) time.Duration {
	l := k.link
	l.mu.Lock()
	defer l.mu.Unlock()
	look := l.cfg.KeepAlive / 3
	left := l.cfg.HelloTimeout - now.Sub(k.began)
	if l.peer != nil {
		left = l.cfg.KeepAliveTimeout - now.Sub(l.lastRecv)
	}
	if left > 0 {
		look = min(look, left)
	}
	return look
}

// greeted tells whether the peer's HELLO arrived.
func (l *Link) greeted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer != nil
}

// keepalive does what is due at now and returns how long the peer has been
// silent if that is too long, else 0.
func (l *Link) keepalive(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peer == nil {
		return 0 // the wait for HELLO has a bound of its own
	}
	if silence := now.Sub(l.lastRecv); silence >= l.cfg.KeepAliveTimeout {
		return silence
	}
	if now.Sub(l.lastPing) >= l.cfg.KeepAlive {
		l.ping(now)
	}
	l.reclaimIdle(now)
	l.endLingering(now)
	return 0
}

func (l *Link) ping(now time.Time) {
	l.lastPing = now
	l.sendControl(wire.Frame{Kind: wire.KindPing, Nonce: l.rtt.start(now)})
}

// Ping measures the round trip to the peer's link, which is not that of a session behind
// what it has sent.
func (l *Link) Ping(ctx context.Context) (time.Duration, error) {
	if _, err := l.Peer(ctx); err != nil {
		return 0, err
	}
	l.mu.Lock()
	done := l.rtt.await()
	if l.rtt.sent.IsZero() {
		l.ping(time.Now())
	}
	l.mu.Unlock()
	select {
	case <-done:
	case <-l.ended:
		l.mu.Lock()
		defer l.mu.Unlock()
		return 0, refusedBy(l.err) // also of a link that was drained
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt.last, nil
}

// lostAfter is when a measurement is given up that the peer has not answered: of several
// pings that wait it answers the last.
const lostAfter = 10 * time.Second

// rtt keeps the smallest of the last round trips: queues make single ones
// longer, never shorter. The zero value has none.
type rtt struct {
	recent [8]time.Duration
	n      int
	nonce  uint64
	sent   time.Time
	last   time.Duration
	done   chan struct{} // closed with the next measurement; nil where nobody waits
}

// await returns what is closed with the next measurement.
func (r *rtt) await() <-chan struct{} {
	if r.done == nil {
		r.done = make(chan struct{})
	}
	return r.done
}

// start begins a measurement and returns the nonce to send: 0 while an earlier
// measurement still waits, which a long path may make it do for several pings.
func (r *rtt) start(now time.Time) uint64 {
	if !r.sent.IsZero() && now.Sub(r.sent) < lostAfter {
		return 0
	}
	r.nonce++
	r.sent = now
	return r.nonce
}

// stop ends the measurement that nonce belongs to; others are ignored.
func (r *rtt) stop(nonce uint64, now time.Time) {
	if nonce != r.nonce || r.sent.IsZero() {
		return
	}
	r.last = max(now.Sub(r.sent), 1)
	r.recent[r.n%len(r.recent)] = r.last
	r.n++
	r.sent = time.Time{}
	if r.done != nil {
		close(r.done)
		r.done = nil
	}
}

// min returns the smallest recent round trip, 0 before the first.
func (r *rtt) min() time.Duration {
	var least time.Duration
	for _, d := range r.recent[:min(r.n, len(r.recent))] {
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}
