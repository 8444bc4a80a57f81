package mux

import (
	"fmt"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

func (l *Link) isOwn(id wire.SessionID) bool { return (id%2 == 1) == l.cfg.Dialler }

// handle takes one frame from the peer. It runs in the receive loop with mu
// held and never blocks. An error ends the link.
func (l *Link) handle(f *wire.Frame, now time.Time) error {
	if l.err != nil {
		return nil //nolint:nilerr // the link ended while frames of the last message were left
	}
	l.lastRecv = now
	if (l.peer == nil) != (f.Kind == wire.KindHello) {
		if l.peer == nil {
			return protocolError(f.Kind.String() + " before HELLO")
		}
		return protocolError("second HELLO")
	}
	if len(l.control) > maxControl {
		return protocolError(fmt.Sprintf("the peer does not read the answers to its frames: %d are queued", len(l.control)))
	}
	switch f.Kind {
	case wire.KindHello:
		return l.handleHello(f.Hello, now)
	case wire.KindOpen:
		return l.handleOpen(f)
	case wire.KindPing:
		l.sendPong(f.Nonce)
		return nil
	case wire.KindPong:
		l.rtt.stop(f.Nonce, now)
		return nil
	case wire.KindGoAway:
		l.handleGoAway(f)
		return nil
	case wire.KindStatus:
		l.peerStatus = f.Status
		return nil
	}
	s, err := l.lookup(f)
	if s == nil {
		return err
	}
	l.idle.touch(s, now)
	if s.own && s.state == stateOpening && f.Kind != wire.KindOpened && f.Kind != wire.KindRefused && f.Kind != wire.KindReset {
		s.reset(protocolError(f.Kind.String() + " before OPENED"))
		return nil
	}
	switch f.Kind {
	case wire.KindData:
		s.handleData(f)
	case wire.KindFin:
		s.handleFin(f.Offset)
	case wire.KindStop:
		s.handleStop()
	case wire.KindReset:
		s.abort(&Error{Code: f.Code, Hop: f.Hop, Message: f.Message})
	case wire.KindOpened:
		s.handleOpened(f.Offset)
	case wire.KindRefused:
		s.handleRefused(f)
	case wire.KindCredit:
		s.handleCredit(f.Offset)
	case wire.KindReclaim:
		s.handleReclaim(f.Offset)
	case wire.KindReturned:
		s.handleReturned(f.Offset)
	}
	return nil
}

// lookup finds the session of a frame. A session that has ended gives nil: the
// peer may have sent the frame before it knew. One that never was is an error.
func (l *Link) lookup(f *wire.Frame) (*Session, error) {
	if s := l.sessions[f.Session]; s != nil {
		return s, nil
	}
	last := l.lastPeer
	if l.isOwn(f.Session) {
		last = l.lastOwn
	}
	if f.Session == 0 || f.Session > last {
		return nil, protocolError(fmt.Sprintf("%s for session %d, which was never opened", f.Kind, f.Session))
	}
	return nil, nil
}

// leastMaxData keeps a peer from asking for a frame a byte.
const leastMaxData = 1024

func (l *Link) handleHello(h *wire.Hello, now time.Time) error {
	if h.Revision == 0 {
		return protocolError("HELLO without a revision")
	}
	switch {
	case h.MaxData == 0:
		h.MaxData = 16 << 10
	case h.MaxData < leastMaxData:
		return protocolError(fmt.Sprintf("HELLO with max_data %d, below %d", h.MaxData, leastMaxData))
	}
	h.MaxData = min(h.MaxData, 1<<20)
	l.peer = h
	close(l.helloDone)
	l.statusDue = l.cfg.Status != nil
	l.ping(now) // flow control wants a round trip from the start
	l.wakeSender()
	return nil
}

// handleOpen admits or refuses a session that the peer opens.
func (l *Link) handleOpen(f *wire.Frame) error {
	if f.Session == 0 || l.isOwn(f.Session) || f.Session <= l.lastPeer {
		return protocolError(fmt.Sprintf("OPEN with session %d after %d", f.Session, l.lastPeer))
	}
	l.lastPeer = f.Session
	if code, why := l.admit(); code != wire.CodeUnspecified {
		l.sendControl(wire.Frame{Kind: wire.KindRefused, Session: f.Session, Code: code, Hop: l.cfg.Hop, Message: why})
		return nil
	}
	s := l.newSession(f.Session)
	s.target, s.requestID, s.trace, s.cluster = f.Open.Target, f.Open.RequestID, f.Open.Trace, f.Open.Cluster
	s.sendLimit = wire.Offset(f.Open.Window)
	// What HELLO promised to every session, whatever the budget says.
	s.recvLimit = wire.Offset(l.cfg.MinWindow)
	l.cfg.Budget.commit(int64(s.recvLimit))
	l.peerOpen++
	l.pending++
	if f.Payload != nil {
		s.handleData(f)
		if l.sessions[f.Session] == nil {
			l.pending--
			return nil // the first bytes were more than the window
		}
	}
	l.startHandler(s, f.Open.Timeout)
	return nil
}

// admit tells why no session of the peer is taken now; CodeUnspecified means that
// one is.
func (l *Link) admit() (code wire.Code, why string) {
	switch {
	case l.draining != nil:
		return l.draining.Code, l.draining.Message
	case l.cfg.Handler == nil:
		return wire.CodeInvalidTarget, "this side takes no sessions"
	case l.peerOpen >= l.cfg.MaxSessions:
		return wire.CodeResourceExhausted, fmt.Sprintf("%d sessions are open", l.peerOpen)
	case l.pending >= l.cfg.MaxPending:
		return wire.CodeResourceExhausted, fmt.Sprintf("%d opens are undecided", l.pending)
	case l.cfg.Budget.exhausted():
		return wire.CodeResourceExhausted, "the receive memory budget is used up"
	default:
		return wire.CodeUnspecified, ""
	}
}

func (s *Session) handleData(f *wire.Frame) {
	n := 0
	if f.Payload != nil {
		n = f.Payload.Len()
	}
	s.link.count.received += uint64(n)
	switch {
	case s.finRecv:
		s.reset(protocolError("DATA after FIN"))
	case s.recvOff+wire.Offset(n) > s.recvLimit:
		s.reset(&Error{
			Code: wire.CodeFlowControlError, Hop: wire.HopLink,
			Message: fmt.Sprintf("the peer sent up to offset %d with credit up to %d", s.recvOff+wire.Offset(n), s.recvLimit),
		})
	case n == 0:
	case s.readClosed:
		s.recvOff += wire.Offset(n)
		s.consumed(n)
	default:
		s.recvOff += wire.Offset(n)
		s.recvQ.push(f.Payload)
		f.Payload = nil
		s.wakeReaders()
	}
}

func (s *Session) handleFin(off wire.Offset) {
	if s.finRecv || off != s.recvOff {
		s.reset(protocolError(fmt.Sprintf("FIN at offset %d where %d bytes were received", off, s.recvOff)))
		return
	}
	s.finRecv = true
	s.lowerLimit(s.recvOff) // no byte will use the credit that is left
	s.wakeReaders()
	s.settle()
}

func (s *Session) handleStop() {
	if s.stopRecv || s.finSent {
		return
	}
	s.stopRecv = true
	s.dropQueued()
	s.finQueued = true // answers with FIN at what was sent
	s.writable.Broadcast()
	if s.interruption != nil {
		s.interruption.start()
	}
	s.schedule()
}

func (s *Session) handleOpened(off wire.Offset) {
	if s.state != stateOpening || !s.own {
		s.reset(protocolError("OPENED for a session that is not being opened"))
		return
	}
	s.state, s.opened = stateOpen, true
	s.link.count.opening--
	s.raiseLimit(off)
	s.noteStall()
	close(s.decided)
	if s.closed {
		s.closeBoth() // what Finish has put off
	}
}

func (s *Session) handleRefused(f *wire.Frame) {
	if s.state != stateOpening || !s.own {
		s.reset(protocolError("REFUSED for a session that is not being opened"))
		return
	}
	s.refused(&Error{Code: f.Code, Hop: f.Hop, Message: f.Message, Refused: true})
}

// refused ends a session that the peer did not open.
func (s *Session) refused(e *Error) { s.abort(e) }

func (s *Session) handleCredit(off wire.Offset) { s.raiseLimit(off) }

func (s *Session) raiseLimit(off wire.Offset) {
	if off > s.sendLimit {
		s.sendLimit = off
		s.schedule()
	}
}

// handleReclaim gives back what this side has not used.
func (s *Session) handleReclaim(off wire.Offset) {
	s.sendLimit = min(s.sendLimit, max(off, s.sendOff))
	s.noteStall()
	s.returnDue = true
	s.link.credits.add(s, creditList)
	s.link.wakeSender()
}
