package mux

import (
	"cmp"
	"slices"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// Stats is a snapshot of a link. What it counts never falls.
type Stats struct {
	// Sessions counts the sessions that are alive, in both directions.
	Sessions int
	// Pending counts those of them that the other side, or this side's Handler, has
	// not decided about.
	Pending int
	// Stalled counts those of them that have bytes to send for which the peer gives
	// no credit: whoever reads at its end does not keep up.
	Stalled int
	// StallTime is how long sessions were Stalled, all of them added up.
	StallTime time.Duration
	// Queued is how many bytes wait to be sent.
	Queued int
	// Sent and Received count the bytes of sessions that were given to and taken
	// from the transport, without the frames around them.
	Sent, Received uint64
	// RTT is the smallest recent round trip; 0 before the first.
	RTT time.Duration
	// Draining tells that one of the sides takes no new sessions.
	Draining bool
	// Silent is how long ago the last frame from the peer arrived.
	Silent time.Duration
	// Peer is how ready the peer said it is, which nobody changes; nil when it said
	// nothing.
	Peer *wire.Status
}

// Stats returns a snapshot. It also answers after the link has ended, for what
// it counted.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Sessions:  l.ownOpen + l.peerOpen,
		Pending:   l.count.opening + l.pending,
		Stalled:   l.count.stalled,
		StallTime: l.count.stallTimeAt(l.age()),
		Queued:    l.count.queued,
		Sent:      l.count.sent,
		Received:  l.count.received,
		RTT:       l.rtt.min(),
		Draining:  l.draining != nil || l.goneAway != nil || l.err != nil,
		Silent:    time.Since(l.lastRecv),
		Peer:      l.peerStatus,
	}
}

// SessionStats is a snapshot of a session.
type SessionStats struct {
	ID wire.SessionID
	// Own tells that this side opened it.
	Own bool
	// Opened tells that it was decided; before, Target is not connected.
	Opened    bool
	Target    wire.Target
	RequestID string
	// Trace is the opener's traceparent, or "".
	Trace string
	// Age is how long ago it began, Idle how long ago the peer last sent something
	// for it.
	Age, Idle time.Duration
	// Sent and Received count its bytes in each direction.
	Sent, Received uint64
	// Queued bytes wait to be sent, Unread bytes were received and not taken.
	Queued, Unread int
	// Stalled is for how long it has had bytes to send without credit; 0 when it is
	// not so now.
	Stalled time.Duration
}

// Sessions returns a snapshot of at most limit sessions that are alive, in the
// order in which they were opened by either side. The link waits while it is
// made, so it is for people who look, not for measuring often.
func (l *Link) Sessions(limit int) []SessionStats {
	l.mu.Lock()
	out := make([]SessionStats, 0, min(limit, len(l.sessions)))
	for _, s := range l.sessions {
		if len(out) == limit {
			break
		}
		out = append(out, s.stats())
	}
	l.mu.Unlock()
	slices.SortFunc(out, func(a, b SessionStats) int {
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// stats is called with mu held.
func (s *Session) stats() SessionStats {
	age := s.link.age()
	out := SessionStats{
		ID: s.id, Own: s.own, Opened: s.state != stateOpening,
		Target: s.target, RequestID: s.requestID, Trace: s.trace,
		Age: age - s.began, Idle: time.Since(s.lastRecv),
		Sent: uint64(s.sendOff), Received: uint64(s.recvOff),
		Queued: s.sendQ.size, Unread: int(s.recvOff - s.readOff),
	}
	if s.stalledAt != 0 {
		out.Stalled = age - s.stalledAt
	}
	return out
}

// age is the link's clock: times of sessions are kept in it, in a third of the
// memory of a time.Time. It is never 0.
func (l *Link) age() time.Duration { return time.Since(l.count.start) + 1 }

// counters are what a link counts beside what it needs; guarded by its mu. Each
// is a plain addition where the lock is held anyway.
type counters struct {
	start          time.Time
	opening        int // sessions of this side that the peer has not decided about
	queued         int
	sent, received uint64

	stalled   int
	stallTime time.Duration // of stalls that are over
	stallFrom time.Duration // the beginnings of the others, added up
}

// stallTimeAt returns the time of all stalls, those that go on included.
func (c *counters) stallTimeAt(now time.Duration) time.Duration {
	return c.stallTime + time.Duration(c.stalled)*now - c.stallFrom
}

// queue accounts for n bytes more, or fewer, that wait to be sent. mu is held.
func (s *Session) queue(n int) {
	s.link.count.queued += n
	s.link.cfg.Budget.queued.Add(int64(n))
}

// noteStall looks whether bytes wait for credit alone. It is called where one of
// the two changes, with mu held, and looks at the clock only when a stall begins
// or ends.
func (s *Session) noteStall() {
	stalled := s.sendQ.size > 0 && s.sendOff >= s.sendLimit && s.state == stateOpen
	if stalled == (s.stalledAt != 0) {
		return
	}
	c, now := &s.link.count, s.link.age()
	if stalled {
		s.stalledAt = now
		c.stalled++
		c.stallFrom += now
		return
	}
	c.stalled--
	c.stallFrom -= s.stalledAt
	c.stallTime += now - s.stalledAt
	s.stalledAt = 0
}
