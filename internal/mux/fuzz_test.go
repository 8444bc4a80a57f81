package mux

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/wire"
)

// FuzzPeer plays a peer that sends any frames in any order against the state
// machine, with an application that reads and writes in between. Whatever it
// does, nothing panics, a session never holds more than its credit, and all
// memory is given back.
func FuzzPeer(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 2, 1, 0, 0, 5, 1, 9, 0, 6, 1, 9, 0}, false)
	f.Add([]byte{1, 0, 0, 0, 101, 0, 0, 0, 3, 1, 200, 0, 5, 1, 100, 0, 102, 0, 0, 0, 6, 1, 100, 0}, true)
	f.Add([]byte{1, 0, 0, 0, 100, 0, 0, 0, 7, 2, 0, 0, 10, 2, 1, 0, 11, 2, 1, 0, 14, 0, 0, 0}, true)
	f.Add([]byte{1, 0, 0, 0, 15, 0, 18, 1, 15, 0, 0, 0, 101, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, script []byte, dialler bool) {
		budget := NewBudget(2000)
		l := newLink(Config{
			Dialler: dialler, Budget: budget, Hop: wire.HopHub,
			InitialWindow: 400, MinWindow: 50, MaxWindow: 1000, SendBuffer: 500,
			MaxSessions: 8, MaxPending: 4, OpenTimeout: time.Hour,
			Handler: func(ctx context.Context, _ *Incoming) { <-ctx.Done() },
		}.withDefaults())
		l.tr = nowhere{}
		var own []*Session
		for len(script) >= 4 {
			op, id, n, m := script[0], wire.SessionID(script[1]), int(script[2]), script[3]
			script = script[4:]
			l.mu.Lock()
			err := step(l, &own, op, id, n, m)
			checkInvariants(t, l)
			l.mu.Unlock()
			if err != nil {
				l.fail(err)
				break
			}
		}
		l.fail(protocolError("end"))
		l.handlers.Wait()
		for _, s := range own {
			_ = s.Close() // may be closed already
		}
		if used := budget.Used(); used != 0 {
			t.Fatalf("%d bytes of the budget are still committed", used)
		}
	})
}

// step does one thing with mu held: a frame from the peer, or from 100 on
// something the application or the send loop does.
func step(l *Link, own *[]*Session, op byte, id wire.SessionID, n int, m byte) error {
	switch op {
	case 100:
		if l.peer != nil && l.ownOpen < 8 {
			s := l.newSession(l.nextID())
			l.ownOpen++
			s.decided = make(chan struct{})
			s.sendLimit = wire.Offset(l.peer.InitialWindow)
			s.recvLimit = wire.Offset(l.cfg.Budget.reserve(400, 50))
			*own = append(*own, s)
		}
	case 101:
		var b wire.Batch
		l.fill(&b)
		b.Free()
	case 102:
		l.lastRecv = time.Now()
		l.reclaimIdle(time.Now().Add(time.Hour))
	case 103, 104, 105, 106:
		s := l.sessions[id]
		if s == nil || (!s.own && s.state == stateOpening) {
			return nil
		}
		switch op {
		case 103:
			if p := s.recvQ.pop(n + 1); p != nil {
				k := p.Len()
				p.Free()
				s.consumed(k)
			}
		case 104:
			if s.writeError() == nil && s.sendQ.size+n <= l.cfg.SendBuffer {
				s.sendQ.append(make([]byte, n))
				s.schedule()
			}
		case 105:
			s.closeWrite()
		case 106:
			s.closeRead()
		}
	default:
		f := wire.Frame{
			Kind: wire.Kind(op), Session: id, Offset: wire.Offset(n) | wire.Offset(m)<<8, Nonce: uint64(n),
			Code: wire.Code(m), LastSession: id,
		}
		switch f.Kind {
		case wire.KindHello:
			f.Hello = &wire.Hello{Revision: 1, InitialWindow: uint64(n), MaxData: uint32(m) << 3}
		case wire.KindOpen:
			f.Open = &wire.Open{Target: wire.KubernetesAPI(), Window: uint64(n) << (m % 56)}
			f.Payload = mem.SliceBuffer(make([]byte, int(m)*2))
		case wire.KindData:
			f.Payload = mem.SliceBuffer(make([]byte, n))
		case wire.KindStatus:
			f.Status = &wire.Status{Kubernetes: &wire.Readiness{Ready: m%2 == 0, Code: wire.Code(n)}}
		}
		return l.handle(&f, time.Now())
	}
	return nil
}

func checkInvariants(t *testing.T, l *Link) {
	var committed int64
	peers, owns := 0, 0
	for id, s := range l.sessions {
		if s.recvOff > s.recvLimit || s.readOff > s.recvOff {
			t.Fatalf("session %d: read %d, received %d, granted %d", id, s.readOff, s.recvOff, s.recvLimit)
		}
		if s.recvQ.size != int(s.recvOff-s.readOff) {
			t.Fatalf("session %d holds %d bytes, %d are unread", id, s.recvQ.size, s.recvOff-s.readOff)
		}
		if s.sendQ.size > l.cfg.SendBuffer {
			t.Fatalf("session %d has %d bytes to send", id, s.sendQ.size)
		}
		committed += int64(s.recvLimit - s.readOff)
		if s.own {
			owns++
		} else {
			peers++
		}
	}
	if peers != l.peerOpen || owns != l.ownOpen || peers > l.cfg.MaxSessions {
		t.Fatalf("%d of the peer, %d own; counted %d, %d", peers, owns, l.peerOpen, l.ownOpen)
	}
	if used := l.cfg.Budget.Used(); used < committed {
		t.Fatalf("%d bytes are committed, the budget knows of %d", committed, used)
	}
}
