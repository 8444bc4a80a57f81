package mux

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/wire"
)

// abused is an acceptor whose handlers hang until release, and a peer that says
// what the test wants.
func abused(t *testing.T, cfg Config) (l *Link, release func()) {
	t.Helper()
	hang := make(chan struct{})
	cfg.Handler = func(context.Context, *Incoming) { <-hang }
	l = newLink(cfg.withDefaults())
	l.tr = nowhere{}
	say(t, l, wire.Frame{Kind: wire.KindHello, Hello: &wire.Hello{Revision: 1, InitialWindow: 1 << 16}})
	return l, func() {
		close(hang)
		l.fail(errDrained)
		l.handlers.Wait()
	}
}

func say(t *testing.T, l *Link, f wire.Frame) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.handle(&f, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestRapidReset(t *testing.T) {
	t.Run("N1: a peer that opens and resets cannot have more handlers than the bound", func(t *testing.T) {
		l, release := abused(t, Config{MaxPending: 3})
		for id := wire.SessionID(1); id < 200; id += 2 {
			say(t, l, wire.Frame{Kind: wire.KindOpen, Session: id, Open: &wire.Open{Target: wire.KubernetesAPI()}})
			if l.sessions[id] != nil {
				say(t, l, wire.Frame{Kind: wire.KindReset, Session: id, Code: wire.CodeCanceled})
			}
		}
		refused := 0
		for _, f := range l.control {
			if f.Kind == wire.KindRefused && f.Code == wire.CodeResourceExhausted {
				refused++
			}
		}
		if l.pending != 3 || refused != 97 {
			t.Errorf("%d handlers, %d opens refused; want 3 and 97", l.pending, refused)
		}
		release()
		if l.pending != 0 {
			t.Errorf("%d places are still taken", l.pending)
		}
	})
}

func TestStalledReadersLeaveRoom(t *testing.T) {
	t.Run("N1: windows that grew leave half of the budget to other sessions", func(t *testing.T) {
		budget := NewBudget(64 << 20)
		l, release := abused(t, Config{Budget: budget})
		defer release()
		l.rtt.stop(l.rtt.start(time.Now()), time.Now().Add(time.Second)) // a long path
		for id := wire.SessionID(1); id <= 32; id += 2 {
			say(t, l, wire.Frame{Kind: wire.KindOpen, Session: id, Open: &wire.Open{Target: wire.KubernetesAPI()}})
			s := l.sessions[id]
			in := &Incoming{s: s}
			if _, err := in.Accept(); err != nil {
				t.Fatal(err)
			}
			// The reader keeps up with 256 MiB, and stalls after that.
			for range 1024 {
				n := int(min(256<<10, s.recvLimit-s.recvOff))
				say(t, l, wire.Frame{Kind: wire.KindData, Session: id, Payload: mem.SliceBuffer(make([]byte, n))})
				l.mu.Lock()
				for s.recvQ.size > 0 {
					p := s.recvQ.pop(maxPiece)
					s.consumed(p.Len())
					p.Free()
				}
				l.mu.Unlock()
			}
		}
		if used := budget.Used(); used > budget.Limit()*3/4 {
			t.Errorf("16 sessions hold %d of %d bytes", used, budget.Limit())
		}
		if l.sessions[1].window <= DefaultInitialWindow {
			t.Errorf("the window of a fast reader stayed at %d", l.sessions[1].window)
		}
	})
}

func TestIdleSessionsCostLittleOfTheBudget(t *testing.T) {
	t.Run("N1: thousands of idle sessions neither use the budget up nor keep others out", func(t *testing.T) {
		budget := NewBudget(256 << 20)
		l, release := abused(t, Config{Budget: budget})
		for id := wire.SessionID(1); id < 10000; id += 2 {
			say(t, l, wire.Frame{Kind: wire.KindOpen, Session: id, Open: &wire.Open{Target: wire.KubernetesAPI()}})
			s := l.sessions[id]
			if s == nil {
				t.Fatalf("session %d was refused with %d of %d bytes used", id, budget.Used(), budget.Limit())
			}
			if _, err := (&Incoming{s: s}).Accept(); err != nil {
				t.Fatal(err)
			}
		}
		release()
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes are still committed", used)
		}
	})
}

func TestDribblingReader(t *testing.T) {
	t.Run("N1: with the budget used up, a reader of single bytes does not make a frame each", func(t *testing.T) {
		budget := NewBudget(1 << 20)
		l, release := abused(t, Config{Budget: budget})
		defer release()
		say(t, l, wire.Frame{Kind: wire.KindOpen, Session: 1, Open: &wire.Open{Target: wire.KubernetesAPI()}})
		s := l.sessions[1]
		if _, err := (&Incoming{s: s}).Accept(); err != nil {
			t.Fatal(err)
		}
		budget.commit(budget.Limit())
		defer budget.release(budget.Limit())
		say(t, l, wire.Frame{Kind: wire.KindData, Session: 1, Payload: mem.SliceBuffer(make([]byte, DefaultInitialWindow))})
		credits := 0
		for range DefaultInitialWindow {
			l.mu.Lock()
			p := s.recvQ.pop(1)
			s.consumed(1)
			p.Free()
			if s.creditDue {
				credits++
				s.leave(creditList)
				s.creditDue = false
			}
			l.mu.Unlock()
		}
		if credits == 0 || credits > 4 {
			t.Errorf("%d CREDIT frames for %d bytes read singly", credits, DefaultInitialWindow)
		}
	})
}

func TestLongReasonsDoNotBreakTheLink(t *testing.T) {
	t.Run("K1: a reason longer than the bound is shortened, not refused by the receiver", func(t *testing.T) {
		long := make([]byte, 5000)
		for i := range long {
			long[i] = "ä\xff"[i%3]
		}
		var b wire.Batch
		b.Append(&wire.Frame{Kind: wire.KindReset, Session: 1, Code: wire.CodeTLSFailure, Message: string(long)})
		out := b.Take()
		defer out.Free()
		var r wire.Received
		if err := r.Decode(out); err != nil {
			t.Fatal(err)
		}
		if n := len(r.Frames[0].Message); n < 1000 || n > 1024 {
			t.Errorf("the reason arrived with %d bytes", n)
		}
	})
}
