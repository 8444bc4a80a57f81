package mux_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestFirst holds that bytes that came before Accept can be taken, once, and that credit
// goes on as if they had been read.
func TestFirst(t *testing.T) {
	for _, most := range []int{0, 1, 1000, 16 << 10, 1 << 20} {
		first, cluster := make(chan []byte, 1), make(chan string, 1)
		arrived := make(chan struct{})
		var p *muxtest.Pair
		p = muxtest.New(t, func(_, acceptor *mux.Config) {
			acceptor.Handler = func(_ context.Context, in *mux.Incoming) {
				<-arrived
				cluster <- in.Cluster()
				first <- in.First(most)
				if s, err := in.Accept(); err == nil {
					p.Accepted <- s
				}
			}
		})
		sent := random(300 << 10) // more than any first window
		s, err := p.Dialler.Start(t.Context(), mux.Request{Target: wire.Address("db", 1), Cluster: "edge-1", Payload: sent[:100]})
		if err != nil {
			t.Fatal(err)
		}
		// What the window of a session that is not accepted holds.
		if _, err := s.Write(sent[100:1000]); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Dialler.Ping(t.Context()); err != nil { // the frames before it are there
			t.Fatal(err)
		}
		close(arrived)
		if got := <-cluster; got != "edge-1" {
			t.Errorf("N3: cluster %q", got)
		}
		early := <-first
		if len(early) > most || most > 0 && len(early) == 0 {
			t.Errorf("N3: %d bytes of at most %d", len(early), most)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := s.Write(sent[1000:])
			ended <- errors.Join(err, s.CloseWrite())
		}()
		b := <-p.Accepted
		rest, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(append(early, rest...), sent) {
			t.Errorf("N3: %d and %d of %d bytes, %v", len(early), len(rest), len(sent), err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		p.Stop()
	}
}

func TestPing(t *testing.T) {
	t.Run("several at once share a measurement", func(t *testing.T) {
		p := muxtest.New(t)
		results := make(chan time.Duration, 10)
		for range cap(results) {
			go func() {
				rtt, err := p.Dialler.Ping(t.Context())
				if err != nil {
					t.Error(err)
				}
				results <- rtt
			}()
		}
		for range cap(results) {
			if rtt := <-results; rtt <= 0 || rtt > time.Minute {
				t.Errorf("got %v", rtt)
			}
		}
	})
	t.Run("it ends with its context and with the link", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := muxtest.Pipe() // whose other end says nothing
			defer b.Close(false)
			l := mux.New(a, mux.Config{Dialler: true})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			life, end := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- l.Run(life) }()
			if _, err := l.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			end()
			<-ran
			if _, err := l.Ping(t.Context()); err == nil {
				t.Error("a link that has ended was pinged")
			}
		})
	})
}

// TestLeaving holds what a side does that has another link in the place of this one.
func TestLeaving(t *testing.T) {
	p := muxtest.New(t)
	kept, _ := p.Open(t)
	flushed, far := p.Open(t)
	select {
	case <-p.Acceptor.Leaving():
		t.Fatal("nobody is leaving")
	default:
	}
	sent := random(1 << 20)
	written := make(chan error, 1)
	go func() {
		_, err := flushed.Write(sent)
		written <- errors.Join(err, flushed.Close())
	}()
	got, err := io.ReadAll(io.LimitReader(far, 1000))
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.Dialler.Drain(t.Context(), wire.CodeDraining, "bye") }()
	<-p.Acceptor.Leaving()
	rest, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(append(got, rest...), sent) {
		t.Errorf("%d bytes, %v", len(got)+len(rest), err)
	}
	if err := errors.Join(<-written, far.Close()); err != nil {
		t.Error(err)
	}
	p.Dialler.ResetOpen(wire.CodeCanceled, "gone")
	var e *mux.Error
	if _, err := kept.Read(make([]byte, 1)); !errors.As(err, &e) || e.Code != wire.CodeCanceled {
		t.Errorf("got %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
