package mux_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/wire"
)

const statsWindow = 4 << 10

func small(d, a *mux.Config) {
	for _, c := range []*mux.Config{d, a} {
		c.InitialWindow, c.MinWindow, c.MaxWindow = statsWindow, statsWindow, statsWindow
	}
}

func TestStats(t *testing.T) {
	t.Run("K10: a session whose peer does not read is stalled for as long as that lasts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := muxtest.New(t, small)
			defer p.Stop()
			ours, theirs := p.Open(t)
			if _, err := ours.Write(bytes.Repeat([]byte("x"), 2*statsWindow)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			s := p.Dialler.Stats()
			if s.Stalled != 1 || s.StallTime != 3*time.Second || s.Sent != statsWindow || s.Queued == 0 || s.Sessions != 1 || s.Pending != 0 {
				t.Errorf("while it is stalled: %+v", s)
			}
			if live := p.Dialler.Sessions(10); len(live) != 1 || live[0].Stalled != 3*time.Second || !live[0].Own || !live[0].Opened ||
				live[0].Sent != statsWindow || live[0].Age != 3*time.Second || live[0].Target.Kind != wire.TargetKubernetesAPI {
				t.Errorf("live: %+v", live)
			}
			if live := p.Acceptor.Sessions(10); len(live) != 1 || live[0].Unread != statsWindow || live[0].Stalled != 0 || live[0].Own {
				t.Errorf("at the other end: %+v", live)
			}
			if _, err := io.ReadFull(theirs, make([]byte, 2*statsWindow)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(time.Second)
			s = p.Dialler.Stats()
			if s.Stalled != 0 || s.StallTime != 3*time.Second || s.Sent != 2*statsWindow || s.Queued != 0 {
				t.Errorf("after: %+v", s)
			}
			if got := p.Acceptor.Stats().Received; got != 2*statsWindow {
				t.Errorf("received %d", got)
			}
		})
	})
	t.Run("K10: a stall ends with its session, and what was counted stays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := muxtest.New(t, small)
			defer p.Stop()
			ours, _ := p.Open(t)
			if _, err := ours.Write(bytes.Repeat([]byte("x"), 3*statsWindow)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			ours.Reset(wire.CodeCanceled, wire.HopClient, "enough")
			time.Sleep(time.Second)
			if s := p.Dialler.Stats(); s.Stalled != 0 || s.StallTime != 2*time.Second || s.Queued != 0 || s.Sessions != 0 {
				t.Errorf("%+v", s)
			}
			p.Stop()
			if s := p.Dialler.Stats(); s.Sent != statsWindow || !s.Draining {
				t.Errorf("after the link has ended: %+v", s)
			}
		})
	})
	t.Run("K10: an open that nobody has decided about is pending at both ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			decide := make(chan struct{})
			p := muxtest.New(t, func(_, a *mux.Config) { a.Handler = deciding(decide) })
			defer p.Stop()
			s, err := p.Dialler.Start(t.Context(), mux.Request{Target: wire.KubernetesAPI(), Payload: []byte("first")})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if a, b := p.Dialler.Stats(), p.Acceptor.Stats(); a.Pending != 1 || b.Pending != 1 || a.Sent != 5 || b.Received != 5 {
				t.Errorf("%+v and %+v", a, b)
			}
			close(decide)
			if err := s.Wait(t.Context()); err == nil {
				t.Error("it was opened")
			}
			synctest.Wait()
			if a, b := p.Dialler.Stats(), p.Acceptor.Stats(); a.Pending != 0 || b.Pending != 0 {
				t.Errorf("%+v and %+v", a, b)
			}
		})
	})
}

// deciding refuses once it is told to.
func deciding(decide <-chan struct{}) func(context.Context, *mux.Incoming) {
	return func(_ context.Context, in *mux.Incoming) {
		<-decide
		in.Refuse(wire.CodeConnectionRefused, wire.HopTarget, "nobody listens")
	}
}
