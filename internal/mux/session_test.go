package mux_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSessionIsANetConn(t *testing.T) {
	t.Run("N4: deadlines, concurrency, addresses and closing are those of package net", func(t *testing.T) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			p := muxtest.New(t)
			a, b := p.Open(t)
			return a, b, func() {
				_ = a.Close() // the test may have closed it
				_ = b.Close()
				p.Stop()
			}, nil
		})
	})
	t.Run("N4: a closed session gives net.ErrClosed, a deadline os.ErrDeadlineExceeded", func(t *testing.T) {
		p := muxtest.New(t)
		a, b := p.Open(t)
		if err := a.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after the deadline: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"read":       second(a.Read(make([]byte, 1))),
			"write":      second(a.Write([]byte("x"))),
			"close":      a.Close(),
			"closewrite": a.CloseWrite(),
			"deadline":   a.SetDeadline(time.Time{}),
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v, want net.ErrClosed", what, err)
			}
		}
		if _, err := io.ReadAll(b); err != nil {
			t.Errorf("the peer of a clean close: %v", err)
		}
		if _, err := b.Write([]byte("x")); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("writing to a closed peer: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestHalfClose(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 1 << 20, 5<<20 + 3} {
		for _, reverse := range []bool{false, true} {
			t.Run("N2: what is sent before and after the other side closed its half arrives", func(t *testing.T) {
				p := muxtest.New(t)
				a, b := p.Open(t)
				if reverse {
					a, b = b, a
				}
				request, answer := random(size), random(1<<20)
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := a.Write(request); err != nil {
						t.Errorf("write: %v", err)
					}
					if err := a.CloseWrite(); err != nil {
						t.Errorf("closewrite: %v", err)
					}
				})
				got, err := io.ReadAll(b)
				if err != nil || !bytes.Equal(got, request) {
					t.Fatalf("request: got %d bytes, %v; sent %d", len(got), err, size)
				}
				wg.Go(func() {
					if _, err := b.Write(answer); err != nil {
						t.Errorf("answer: %v", err)
					}
					if err := b.Close(); err != nil { // delivers what was written
						t.Errorf("close: %v", err)
					}
				})
				got, err = io.ReadAll(a)
				if err != nil || !bytes.Equal(got, answer) {
					t.Fatalf("answer: got %d bytes, %v", len(got), err)
				}
				wg.Wait()
			})
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestStalledReaderHarmsNobody(t *testing.T) {
	t.Run("N1: a session nobody reads holds one window and does not delay another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			budget := mux.NewBudget(64 << 20)
			p := muxtest.New(t, func(d, _ *mux.Config) { d.Budget = budget })
			stalled, source := p.Open(t)
			var sourceDone sync.WaitGroup
			sent := 0
			sourceDone.Go(func() {
				block := make([]byte, 64<<10)
				for {
					n, err := source.Write(block)
					sent += n
					if err != nil {
						return
					}
				}
			})
			time.Sleep(10 * time.Second) // bubble time: the source runs dry of credit
			atStall := budget.Used()
			if atStall > 4<<20 {
				t.Errorf("a stalled session holds %d bytes", atStall)
			}
			ping, echo := p.Open(t)
			var echoDone sync.WaitGroup
			echoDone.Go(func() {
				if _, err := echo.WriteTo(echo); err != nil {
					t.Errorf("echo: %v", err)
				}
				if err := echo.Close(); err != nil {
					t.Errorf("echo: %v", err)
				}
			})
			start := time.Now()
			for range 1000 {
				if _, err := ping.Write([]byte("ping")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(ping, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("1000 round trips beside a stalled session waited %v of bubble time", took)
			}
			if err := ping.Close(); err != nil {
				t.Fatal(err)
			}
			echoDone.Wait()
			// After a minute the reader comes back and gets every byte, in order.
			time.Sleep(time.Minute)
			if err := source.Close(); err != nil {
				t.Fatal(err)
			}
			sourceDone.Wait()
			n, err := io.Copy(io.Discard, stalled)
			if err != nil || n < int64(sent) {
				t.Errorf("after the stall: %d bytes, %v; %d were sent", n, err, sent)
			}
			if err := stalled.Close(); err != nil {
				t.Fatal(err)
			}
			p.Stop()
			if used := budget.Used(); used != 0 {
				t.Errorf("%d bytes of the budget are still committed", used)
			}
		})
	})
}

// TestEveryByteOnceInOrder runs sessions of random sizes, read fast, slowly, in
// odd pieces or not at all, closed and half-closed at random.
func TestEveryByteOnceInOrder(t *testing.T) {
	t.Run("N1,N2: every byte arrives in order, exactly once, before EOF", func(t *testing.T) {
		budget := mux.NewBudget(8 << 20)
		p := muxtest.New(t, func(d, a *mux.Config) {
			d.Budget, a.Budget = budget, budget
			d.InitialWindow, a.InitialWindow = 64<<10, 64<<10
		})
		var wg sync.WaitGroup
		for i := range 64 {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			a, b := p.Open(t)
			if i%2 == 1 {
				a, b = b, a
			}
			size := rng.IntN(1 << 20)
			wg.Go(func() { produce(t, a, size, rng.Uint64()) })
			wg.Go(func() { consume(t, b, size, i%4) })
		}
		wg.Wait()
		p.Stop()
		if used := budget.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are still committed", used)
		}
	})
}

// produce sends size bytes and their hash in writes of random size, then waits
// for the peer's own end.
func produce(t *testing.T, s *mux.Session, size int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	h := sha256.New()
	for left := size; left > 0; {
		n := min(left, 1+rng.IntN(1<<rng.IntN(18)))
		block := make([]byte, n)
		for i := range block {
			block[i] = byte(rng.Uint32())
		}
		h.Write(block)
		if seed%2 == 0 {
			if _, err := s.ReadFrom(bytes.NewReader(block)); err != nil {
				t.Errorf("readfrom: %v", err)
				return
			}
		} else if _, err := s.Write(block); err != nil {
			t.Errorf("write: %v", err)
			return
		}
		left -= n
	}
	if _, err := s.Write(h.Sum(nil)); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Errorf("closewrite: %v", err)
	}
	if n, err := io.Copy(io.Discard, s); err != nil || n != 2 {
		t.Errorf("the other half: %d bytes, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func consume(t *testing.T, s *mux.Session, size, how int) {
	var got bytes.Buffer
	var err error
	switch how {
	case 0:
		_, err = s.WriteTo(&got)
	case 1:
		_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{s}, make([]byte, 777))
	default:
		_, err = got.ReadFrom(struct{ io.Reader }{s})
	}
	if err != nil || got.Len() != size+sha256.Size {
		t.Errorf("got %d bytes, %v; want %d", got.Len(), err, size+sha256.Size)
		return
	}
	sum := sha256.Sum256(got.Bytes()[:size])
	if !bytes.Equal(sum[:], got.Bytes()[size:]) {
		t.Errorf("the hash of %d bytes differs", size)
	}
	if _, err := s.Write([]byte("ok")); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestLinkLoss(t *testing.T) {
	t.Run("N2,N12: a silent peer is noticed within the timeout, sessions say that the tunnel was lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := muxtest.Pipe()
			l := mux.New(a, mux.Config{Dialler: true, Hop: wire.HopAgent})
			ended := make(chan error, 1)
			go func() { ended <- l.Run(context.Background()) }()
			var hello wire.Batch
			hello.Append(&wire.Frame{Kind: wire.KindHello, Hello: &wire.Hello{Revision: 1, InitialWindow: 1 << 16}})
			if err := b.Send(&hello); err != nil {
				t.Fatal(err)
			}
			go func() { // takes everything, answers nothing
				for {
					var r wire.Received
					if b.Recv(&r) != nil {
						return
					}
					r.Reset()
				}
			}()
			s, err := l.Start(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, rerr := s.Read(make([]byte, 1))
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("noticed after %v", took)
			}
			var e *mux.Error
			if !errors.As(rerr, &e) || e.Code != wire.CodeLinkLost || e.Hop != wire.HopLink {
				t.Errorf("read: %v, want a lost tunnel", rerr)
			}
			if err := <-ended; err == nil {
				t.Error("Run returned nil")
			}
			if _, err := l.Open(t.Context(), mux.Request{}); !errors.As(err, &e) || !e.Refused {
				t.Errorf("open on a lost link: %v, want a refusal that allows another link", err)
			}
		})
	})
}

func TestDrain(t *testing.T) {
	t.Run("K1: a drain lets sessions end and then ends both links without an error", func(t *testing.T) {
		p := muxtest.New(t)
		a, b := p.Open(t)
		drained := make(chan error, 1)
		go func() { drained <- p.Acceptor.Drain(t.Context(), wire.CodeDraining, "restart") }()
		if _, err := a.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(b, b); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(a); err != nil || string(got) != "last" {
			t.Fatalf("during the drain: %q, %v", got, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		<-p.Dialler.Done()
		var e *mux.Error
		if _, err := p.Dialler.Open(t.Context(), mux.Request{}); !errors.As(err, &e) || e.Code != wire.CodeDraining {
			t.Errorf("open after the drain: %v", err)
		}
	})
}

func TestResetAfterTheOpenLosesNothingBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reset := make(chan struct{})
		accept := func(_ context.Context, in *mux.Incoming) {
			s, err := in.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
			<-reset
			s.Reset(wire.CodeConnectionReset, wire.HopTarget, "later")
		}
		p := muxtest.New(t, func(_, a *mux.Config) { a.Handler = accept })
		s, err := p.Dialler.Start(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // opened, written and ended
		close(reset)
		synctest.Wait()
		if err := s.Wait(t.Context()); err != nil {
			t.Errorf("Wait for a session that was opened gave %v", err)
		}
		if got, err := io.ReadAll(s); string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		p.Stop()
	})
}
