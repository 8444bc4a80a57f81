package mux_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestSessionThatWasNotClosedIsForgotten(t *testing.T) {
	lost := func() []weak.Pointer[mux.Session] {
		p := muxtest.New(t)
		reset, _ := p.Open(t)
		left, _ := p.Open(t)
		for _, s := range []*mux.Session{reset, left} {
			if err := s.SetDeadline(time.Now().Add(24 * time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		reset.Reset(wire.CodeCanceled, wire.HopHub, "over")
		p.Stop()
		// One that is over takes a deadline as before.
		if err := left.SetReadDeadline(time.Now().Add(24 * time.Hour)); err != nil {
			t.Fatal(err)
		}
		return []weak.Pointer[mux.Session]{weak.Make(reset), weak.Make(left)}
	}()
	for _, s := range lost {
		end := time.Now().Add(10 * time.Second)
		for runtime.GC(); s.Value() != nil; runtime.GC() {
			if time.Now().After(end) {
				t.Fatal("a session that is over is kept until its deadline")
			}
			runtime.Gosched()
		}
	}
}

func TestDeadlineAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := muxtest.New(t)
		a, b := p.Open(t)
		defer a.Close()
		if _, err := b.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.CloseWrite(), a.SetReadDeadline(time.Now().Add(time.Minute)), a.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.Stop()
		got := make([]byte, 1)
		if _, err := a.Read(got); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // of the bubble's clock
		if _, err := a.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		if err := a.SetReadDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(a); err != nil || string(rest) != "ast" {
			t.Errorf("got %q, %v", rest, err)
		}
	})
}

func TestWriteBesideReadFrom(t *testing.T) {
	p := muxtest.New(t)
	a, b := p.Open(t)
	defer b.Close()
	quiet, end := io.Pipe()
	copied := make(chan error, 1)
	go func() { copied <- second(a.ReadFrom(quiet)) }()
	if _, err := end.Write([]byte("x")); err != nil { // so that it waits for the next
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "xy" && string(got) != "yx" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Write([]byte("z")); err == nil {
		t.Error("a closed session takes bytes")
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
	<-copied // io.EOF of the source, or the end of the session, whichever came first
}

func TestReadFromConnEndsWithTheReader(t *testing.T) {
	p := muxtest.New(t)
	a, b := p.Open(t)
	defer a.Close()
	defer b.Close()
	from, quiet := p.Open(t)
	defer from.Close()
	defer quiet.Close()
	copied := make(chan error, 1)
	go func() { copied <- second(a.ReadFromConn(from)) }()
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if err := <-copied; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v", err)
	}
	if err := from.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := quiet.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(from, make([]byte, 1)); err != nil {
		t.Errorf("the source is of no more use: %v", err)
	}
}

func TestFinishDelivers(t *testing.T) {
	decide := make(chan struct{})
	p := muxtest.New(t, func(_, acceptor *mux.Config) {
		accept := acceptor.Handler
		acceptor.Handler = func(ctx context.Context, in *mux.Incoming) {
			<-decide
			accept(ctx, in)
		}
	})
	s, err := p.Dialler.Start(t.Context(), mux.Request{Target: wire.KubernetesAPI(), Payload: []byte("first, ")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"read": second(s.Read(make([]byte, 1))), "write": second(s.Write([]byte("x"))), "close": s.Close(), "finish": s.Finish()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	close(decide)
	far := <-p.Accepted
	got, err := io.ReadAll(far)
	if err != nil || string(got) != "first, second" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := far.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Dialler.Drain(t.Context(), wire.CodeDraining, "no session is left"); err != nil {
		t.Error(err)
	}
}
