package mux

import (
	"fmt"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// A window that lasts for less than windowRTTs round trips, or leastWindowTime,
	// is too small. The latter stands for the time that scheduling takes where the
	// network takes none.
	windowRTTs      = 8
	leastWindowTime = 2 * time.Millisecond
	// smallAbout is for how long after a small session sent something others leave
	// room for it on a path of at most shortPath, and besideSmall the window, in
	// bytes, that they have then on one that holds less.
	smallAbout  = 100 * time.Millisecond
	shortPath   = 5 * time.Millisecond
	besideSmall = 64 << 10
	// idleAfter is after how long without receipt a session counts as idle.
	idleAfter = time.Second
)

// lowerLimit takes back the credit beyond off, which is not below what arrived.
func (s *Session) lowerLimit(off wire.Offset) {
	if off >= s.recvLimit {
		return
	}
	s.link.cfg.Budget.release(int64(s.recvLimit - off))
	s.recvLimit = off
}

// consumed accounts for n bytes that left the receive queue and grants credit
// when enough of the window is used. mu is held.
func (s *Session) consumed(n int) {
	n = min(n, int(s.recvOff-s.readOff)) // CloseRead may have discarded them
	s.readOff += wire.Offset(n)
	s.link.cfg.Budget.release(int64(n))
	if s.state == stateDone || s.finRecv || s.readClosed || s.reclaiming {
		return
	}
	now := time.Now()
	window := s.fairWindow(now)
	if int(s.recvLimit-s.readOff) <= window-window/4 {
		s.tune(now)
		s.grant()
	}
}

// fairWindow returns how much of its window the session gets now: all, or while
// small sessions are about, little more than its path holds (RFC 6349, section
// 3.3, has the bandwidth-delay product). More would stand in queues, and what the
// small ones send would stand behind it. On a long path it would stand there for
// little of the time that the path takes anyway.
func (s *Session) fairWindow(now time.Time) int {
	rtt := s.link.rtt.min()
	if rtt > shortPath || now.Sub(s.link.lastSmall) > smallAbout {
		return s.window
	}
	holds := int(s.rate * rtt.Seconds() * 5 / 4)
	return min(s.window, max(holds, besideSmall))
}

// grant extends the credit to the window as far as the budget goes.
func (s *Session) grant() {
	cfg := &s.link.cfg
	if cfg.Budget.short() {
		s.window = min(s.window, max(cfg.MinWindow, cfg.Budget.share()))
	}
	outstanding := int64(s.recvLimit - s.readOff)
	want := int64(s.fairWindow(time.Now())) - outstanding
	want = min(want, max(int64(cfg.InitialWindow)-outstanding, int64(cfg.Budget.spare())))
	if want <= 0 {
		return
	}
	n := cfg.Budget.reserve(want, int64(cfg.MinWindow)-outstanding)
	if n < want/4 && outstanding >= int64(cfg.MinWindow)/2 {
		// A dribble of credit would make a dribble of frames.
		cfg.Budget.release(n)
		return
	}
	s.recvLimit += wire.Offset(n)
	s.creditDue = true
	s.link.credits.add(s, creditList)
	s.link.wakeSender()
}

// tune doubles the window when a reader that keeps up took a whole one within some
// round trips: then the window, not the path or the reader, is what limits. Two
// would do on a path that loses nothing; where packets are lost each window takes
// several, while the transport repeats them and holds back what came after.
func (s *Session) tune(now time.Time) {
	if int64(s.readOff-s.epochOff) < int64(s.window) {
		return
	}
	keepsUp := s.recvQ.size < s.window/2 && !s.link.cfg.Budget.short()
	if keepsUp && now.Sub(s.epoch) < max(windowRTTs*s.link.rtt.min(), leastWindowTime) {
		s.window = min(2*s.window, s.link.cfg.MaxWindow)
	}
	s.rate = float64(s.readOff-s.epochOff) / max(now.Sub(s.epoch).Seconds(), 1e-9)
	s.epoch, s.epochOff = now, s.readOff
}

// reclaimIdle asks for credit back while the budget is short, from the sessions
// that have been idle longest. mu is held.
func (l *Link) reclaimIdle(now time.Time) {
	if !l.cfg.Budget.short() {
		return
	}
	asked := int64(0)
	goal := l.cfg.Budget.Used() - l.cfg.Budget.Limit()/2
	for s := l.idle.head; s != nil && asked < goal; s = s.nodes[idleList].next {
		if now.Sub(s.lastRecv) < idleAfter {
			return
		}
		spare := int64(s.recvLimit-s.recvOff) - int64(l.cfg.MinWindow)
		if spare <= 0 || s.reclaiming || s.finRecv || s.readClosed || s.state != stateOpen {
			continue
		}
		asked += spare
		s.reclaim()
	}
}

// reclaim asks the peer for all credit of an open session beyond MinWindow.
func (s *Session) reclaim() {
	s.window = s.link.cfg.MinWindow
	s.reclaiming, s.reclaimDue = true, true
	s.link.credits.add(s, creditList)
	s.link.wakeSender()
}

// endLingering resets closed sessions whose peer has taken nothing for so long that it never
// will, so that they do not hold a place for ever. mu is held.
func (l *Link) endLingering(now time.Time) {
	for s := l.idle.head; s != nil; {
		next := s.nodes[idleList].next
		if now.Sub(s.lastRecv) < l.cfg.Linger {
			return
		}
		if s.closed {
			s.reset(&Error{
				Code: wire.CodeCanceled, Hop: l.cfg.Hop,
				Message: fmt.Sprintf("closed, and the peer took nothing for %v", l.cfg.Linger),
			})
		}
		s = next
	}
}

// handleReturned takes back the credit that the peer gave up.
func (s *Session) handleReturned(off wire.Offset) {
	if !s.reclaiming {
		s.reset(protocolError("RETURNED without RECLAIM"))
		return
	}
	s.reclaiming = false
	s.lowerLimit(max(off, s.recvOff))
	// The window starts over; the reader may have gone on meanwhile.
	s.window = s.link.cfg.InitialWindow
	s.epoch, s.epochOff = time.Now(), s.readOff
	if int64(s.recvLimit-s.readOff) < int64(s.link.cfg.MinWindow) && !s.finRecv && !s.readClosed {
		s.grant()
	}
}
