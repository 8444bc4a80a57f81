package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/wire"
)

const oneWay = 50 * time.Millisecond

// slow is an end of a transport whose messages take their time, however many are
// on the way.
type slow struct {
	mux.Transport
	sent chan<- time.Time // when each message was
	left <-chan time.Time // the same of the other end
}

// slowPipe returns both ends.
func slowPipe() (a, b mux.Transport) {
	x, y := muxtest.Pipe()
	xy, yx := make(chan time.Time, 1024), make(chan time.Time, 1024)
	return slow{x, xy, yx}, slow{y, yx, xy}
}

func (s slow) Send(b *wire.Batch) error {
	s.sent <- time.Now() // before the message, so that Recv finds it
	return s.Transport.Send(b)
}

func (s slow) Recv(r *wire.Received) error {
	if err := s.Transport.Recv(r); err != nil {
		return err
	}
	time.Sleep(time.Until((<-s.left).Add(oneWay)))
	return nil
}

// slowLink returns the hub's end of a link with a round trip of twice oneWay. The
// agent's end gives sessions to handler.
func slowLink(t *testing.T, handler func(context.Context, *mux.Incoming)) (hub *mux.Link, stop func()) {
	t.Helper()
	a, b := slowPipe()
	hub = mux.New(a, mux.Config{Hop: wire.HopHub})
	agent := mux.New(b, mux.Config{Dialler: true, Hop: wire.HopAgent, Handler: handler})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, l := range []*mux.Link{hub, agent} {
		running.Go(func() { _ = l.Run(ctx) }) // ends by the cancellation
	}
	if _, err := hub.Peer(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * oneWay) // whatever begins a link is over
	return hub, func() { cancel(); running.Wait() }
}

// echo answers each session with what it sent.
func echo(_ context.Context, in *mux.Incoming) {
	s, err := in.Accept()
	if err != nil {
		return
	}
	_, _ = io.Copy(s, s)
	_ = s.Close()
}

func decided(error) {}

func TestCold(t *testing.T) {
	for _, c := range []struct {
		title string
		size  int
	}{
		{"N3: a small request and its answer take one round trip, the opening included", 200},
		{"N3: so does one of as many bytes as every session has credit for", mux.DefaultMinWindow},
	} {
		t.Run(c.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := registry.New(registry.Config{Known: known})
				link, stop := slowLink(t, echo)
				defer stop()
				defer r.Add(agent("edge", "a"), link)()
				question := bytes.Repeat([]byte("q"), c.size)

				start := time.Now()
				conn, err := r.Cold(t.Context(), "edge", request(), time.Second, decided)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(question); err != nil {
					t.Fatal(err)
				}
				answer := make([]byte, len(question))
				if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer, question) {
					t.Fatalf("%d bytes, %v", len(answer), err)
				}
				if took := time.Since(start); took >= 13*2*oneWay/10 {
					t.Errorf("took %v, which is more than 1.3 round trips of %v", took, 2*oneWay)
				}
				if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Error(err)
				}
				if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
					t.Errorf("%d bytes more, %v", len(rest), err)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("N3: a large first write arrives whole and once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			link, stop := slowLink(t, echo)
			defer stop()
			defer r.Add(agent("edge", "a"), link)()
			conn, err := r.Cold(t.Context(), "edge", request(), time.Second, decided)
			if err != nil {
				t.Fatal(err)
			}
			question := make([]byte, 1<<20)
			for i := range question {
				question[i] = byte(i % 251)
			}
			go func() {
				if n, err := conn.Write(question); n != len(question) || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
			}()
			answer := make([]byte, len(question))
			if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer, question) {
				t.Errorf("%v, equal %v", err, bytes.Equal(answer, question))
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("N3: an agent that refuses has not seen the bytes, and another one gets them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			willing, stop := slowLink(t, echo)
			defer stop()
			draining, stopDraining := slowLink(t, func(_ context.Context, in *mux.Incoming) {
				in.Refuse(wire.CodeDraining, wire.HopAgent, "the agent is stopping")
			})
			defer stopDraining()
			defer r.Add(agent("edge", "a"), willing)()
			defer r.Add(agent("edge", "b"), draining)() // the newest is tried first
			conn, err := r.Cold(t.Context(), "edge", request(), time.Second, decided)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("once")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 4)
			if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "once" {
				t.Errorf("%q, %v", answer, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("N10: a refusal is the error of Write and of Read, with its hop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			link, stop := slowLink(t, func(_ context.Context, in *mux.Incoming) {
				in.Refuse(wire.CodePermissionDenied, wire.HopAgent, "not allowed")
			})
			defer stop()
			defer r.Add(agent("edge", "a"), link)()
			conn, err := r.Cold(t.Context(), "edge", request(), time.Second, decided)
			if err != nil {
				t.Fatal(err)
			}
			_, werr := conn.Write([]byte("x"))
			_, rerr := conn.Read(make([]byte, 1))
			for _, err := range []error{werr, rerr} {
				if f := fault.As(err); f == nil || f.Code != wire.CodePermissionDenied || f.Hop != wire.HopAgent || f.Cluster != "edge" {
					t.Errorf("got %v", err)
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("N10: an unknown cluster fails before anything is written", func(t *testing.T) {
		r := registry.New(registry.Config{Known: known})
		if _, err := r.Cold(t.Context(), "unknown", request(), time.Second, decided); fault.As(err) == nil || fault.As(err).Code != wire.CodeNotFound {
			t.Errorf("got %v", err)
		}
	})
	t.Run("N4: closing ends a Read that waits, and a Write under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			link, stop := slowLink(t, func(ctx context.Context, in *mux.Incoming) {
				<-ctx.Done() // never decides
				in.Refuse(wire.CodeCanceled, wire.HopAgent, "cancelled")
			})
			defer stop()
			defer r.Add(agent("edge", "a"), link)()
			conn, err := r.Cold(t.Context(), "edge", request(), time.Minute, decided)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 2)
			go func() { _, err := conn.Read(make([]byte, 1)); ended <- err }()
			go func() { _, err := conn.Write([]byte("x")); ended <- err }()
			time.Sleep(3 * oneWay)
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("ended with %v", err)
				}
			}
		})
	})
}
