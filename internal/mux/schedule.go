package mux

import (
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// quantum is what a session may send in its turn while others wait.
	quantum = 16 << 10
	// batchShared and batchAlone bound a batch when sessions compete and when
	// one is alone. A batch is what stands between a control frame and the wire.
	batchShared = 64 << 10
	batchAlone  = 128 << 10
)

// fill puts into b what is to be sent next and tells whether there was
// anything: control frames, then credit, then data by deficit round robin in
// which sessions that were idle go first (the scheme of RFC 8290, sections 3
// and 4, without its queue management). mu is held.
func (l *Link) fill(b *wire.Batch) bool {
	sent := 0
	for sent < len(l.control) && b.Len() < batchShared {
		b.Append(&l.control[sent])
		sent++
	}
	left := copy(l.control, l.control[sent:])
	clear(l.control[left:])
	l.control = l.control[:left]
	if left > 0 {
		return true // data must not pass the control frames that are left
	}
	if cap(l.control) > 256 {
		l.control = nil // a burst is over
	}
	if l.peer == nil {
		return b.Frames() > 0 // the peer's window is not known yet
	}
	if l.pongDue {
		l.pongDue = false
		b.Append(&wire.Frame{Kind: wire.KindPong, Nonce: l.pong})
	}
	l.emitStatus(b)
	for l.credits.head != nil && b.Len() < batchShared {
		l.credits.head.emitCredit(b)
	}
	l.fillData(b)
	return b.Frames() > 0
}

func (l *Link) fillData(b *wire.Batch) {
	limit := batchShared
	if l.fresh.n+l.busy.n == 1 {
		limit = batchAlone
	}
	for b.Len() < limit {
		s, fresh := l.fresh.head, true
		if s == nil {
			s, fresh = l.busy.head, false
		}
		if s == nil {
			return
		}
		if !s.sendable() {
			s.leave(dataList)
			continue
		}
		alone := l.fresh.n+l.busy.n == 1
		if s.deficit <= 0 && !alone {
			s.deficit += quantum
			s.leave(dataList)
			l.busy.add(s, dataList)
			continue
		}
		turn := s.deficit
		if alone {
			turn = limit - b.Len()
		}
		n := s.emitData(b, turn)
		s.deficit = max(s.deficit-n, -quantum)
		if s.sendable() {
			continue
		}
		if fresh && n > 0 && n < smallWrite {
			s.sentLittle()
		}
		// A session that ran dry waits behind the busy ones once, so that one
		// that sends little but often does not always count as fresh.
		s.leave(dataList)
		if fresh && l.busy.n > 0 && s.state != stateDone {
			l.busy.add(s, dataList)
		}
	}
}

// sentLittle notes that the session sent something small. One that receives much
// between, and so only acknowledges, is none that others leave room for.
func (s *Session) sentLittle() {
	if s.recvOff-s.littleAt < besideSmall {
		s.link.lastSmall = time.Now()
	}
	s.littleAt = s.recvOff
}

// emitData appends at least one frame and at most limit bytes of payload.
func (s *Session) emitData(b *wire.Batch, limit int) int {
	n := 0
	for n < limit && s.sendQ.size > 0 && s.sendOff < s.sendLimit {
		most := uint64(min(limit-n, int(s.link.peer.MaxData)))
		piece := s.sendQ.pop(int(min(most, uint64(s.sendLimit-s.sendOff))))
		n += piece.Len()
		s.queue(-piece.Len())
		s.link.count.sent += uint64(piece.Len())
		s.sendOff += wire.Offset(piece.Len())
		b.Append(&wire.Frame{Kind: wire.KindData, Session: s.id, Payload: piece})
	}
	s.noteStall()
	switch over := s.finQueued && !s.finSent && s.sendQ.size == 0; {
	case over && s.failure != nil:
		b.Append(&wire.Frame{Kind: wire.KindReset, Session: s.id, Code: s.failure.Code, Hop: s.failure.Hop, Message: s.failure.Message})
		s.abort(s.failure)
	case over:
		s.finSent = true
		b.Append(&wire.Frame{Kind: wire.KindFin, Session: s.id, Offset: s.sendOff})
		s.settle()
	}
	if s.sendQ.size <= s.sendRoom()/2 {
		s.writable.Signal()
	}
	return n
}

// emitCredit appends what the session has to say about flow control.
func (s *Session) emitCredit(b *wire.Batch) {
	s.leave(creditList)
	if s.stopDue {
		b.Append(&wire.Frame{Kind: wire.KindStop, Session: s.id})
	}
	if s.creditDue && !s.finRecv {
		b.Append(&wire.Frame{Kind: wire.KindCredit, Session: s.id, Offset: s.recvLimit})
	}
	if s.reclaimDue {
		b.Append(&wire.Frame{Kind: wire.KindReclaim, Session: s.id, Offset: s.readOff + wire.Offset(s.window)})
	}
	if s.returnDue {
		b.Append(&wire.Frame{Kind: wire.KindReturned, Session: s.id, Offset: s.sendLimit})
	}
	s.stopDue, s.creditDue, s.reclaimDue, s.returnDue = false, false, false, false
}
