package registry_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/wire"
)

// gated is an end of a transport that lets one message pass once it is gated, and the
// others when it is opened.
type gated struct {
	mux.Transport
	gate chan struct{} // holds one for the message; closed when it is opened
	free chan struct{} // closed when it is gated
}

func (g gated) Send(b *wire.Batch) error {
	select {
	case <-g.free:
		<-g.gate
	default:
	}
	return g.Transport.Send(b)
}

// TestColdThatIsNotRead is about a target that reads no more while the first bytes of a
// request are still to be sent: what it says is the answer, and nothing is left of it.
func TestColdThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxtest.Pipe()
		through := gated{a, make(chan struct{}, 1), make(chan struct{})}
		hub := mux.New(through, mux.Config{Hop: wire.HopHub, SendBuffer: 1 << 10})
		agentEnd := mux.New(b, mux.Config{Dialler: true, Hop: wire.HopAgent, Handler: func(_ context.Context, in *mux.Incoming) {
			s, err := in.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.CloseRead(); err != nil {
				t.Error(err)
			}
			if _, err := s.Write([]byte("too large")); err != nil {
				t.Error(err)
			}
			_ = s.Close()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for _, l := range []*mux.Link{hub, agentEnd} {
			running.Go(func() { _ = l.Run(ctx) }) // ends by the cancellation
		}
		synctest.Wait()
		r := registry.New(registry.Config{Known: known})
		defer r.Add(agent("edge", "a"), hub)()
		conn, err := r.Cold(t.Context(), "edge", request(), time.Second, decided)
		if err != nil {
			t.Fatal(err)
		}
		close(through.free)
		through.gate <- struct{}{}
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.Write(make([]byte, registry.Ahead))
			wrote <- err
		}()
		synctest.Wait()
		close(through.gate)
		if err := <-wrote; err != nil {
			t.Errorf("the first write: %v", err)
		}
		if text, err := io.ReadAll(conn); err != nil || string(text) != "too large" {
			t.Errorf("got %q, %v", text, err)
		}
		if _, err := conn.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the next write: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := hub.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}
