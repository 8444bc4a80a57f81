package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

// ends returns both ends of a TCP connection.
func ends(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialled.Close(), accepted.Close() }) // the test may have closed them
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// sink is an out that can be looked at.
type sink struct {
	bytes.Buffer

	closed bool
}

func (s *sink) Close() error { s.closed = true; return nil }

func TestPipe(t *testing.T) {
	t.Run("in ends first", func(t *testing.T) {
		near, far := ends(t)
		done := make(chan error, 1)
		go func() {
			got, err := io.ReadAll(far)
			if err == nil {
				_, err = far.Write(append(got, " answered"...))
			}
			done <- errors.Join(err, far.Close())
		}()
		var out sink
		if err := Pipe(t.Context(), near, strings.NewReader("question"), &out, false); err != nil || out.String() != "question answered" || !out.closed {
			t.Errorf("%q, %v", out.String(), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("the peer ends first, and still gets what in has", func(t *testing.T) {
		near, far := ends(t)
		in, feed := io.Pipe()
		if _, err := far.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		if err := far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		out := &closes{closed: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- Pipe(t.Context(), near, in, out, false) }()
		<-out.closed
		if _, err := feed.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if err := feed.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(far); err != nil || string(got) != "late" {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-done; err != nil || out.String() != "bye" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
	t.Run("for a terminal the peer's end is the end", func(t *testing.T) {
		near, far := ends(t)
		in, feed := io.Pipe()
		defer feed.Close()
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Pipe(t.Context(), near, in, new(sink), true); err != nil {
			t.Error(err)
		}
	})
	t.Run("a reset is an error at once", func(t *testing.T) {
		near, far := ends(t)
		in, feed := io.Pipe()
		defer feed.Close()
		if err := errors.Join(far.SetLinger(0), far.Close()); err != nil {
			t.Fatal(err)
		}
		if err := Pipe(t.Context(), near, in, new(sink), false); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v", err)
		}
	})
	t.Run("what the peer said before its reset comes, though more is sent", func(t *testing.T) {
		near, far := ends(t)
		done := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(far, make([]byte, 100<<10))
			if err == nil {
				_, err = far.Write([]byte("no more!"))
			}
			done <- errors.Join(err, far.Close())
		}()
		var out sink
		if err := Pipe(t.Context(), near, endless{}, &out, false); !errors.Is(err, syscall.ECONNRESET) || out.String() != "no more!" {
			t.Errorf("%q, %v", out.String(), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("the peer of an in that fails gets a reset", func(t *testing.T) {
		near, far := ends(t)
		in, feed := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- Pipe(t.Context(), near, in, new(sink), false) }()
		if _, err := feed.Write([]byte("half of it")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := feed.CloseWithError(io.ErrNoProgress); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer got %v", err)
		}
		if err := <-done; !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%v", err)
		}
	})
	t.Run("the end of the context is the end, and a reset for the peer", func(t *testing.T) {
		near, far := ends(t)
		in, feed := io.Pipe()
		defer feed.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Pipe(ctx, near, in, new(sink), false); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer got %v", err)
		}
	})
}

// endless is an in that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// closes is an out that tells when it is closed.
type closes struct {
	bytes.Buffer

	closed chan struct{}
}

func (c *closes) Close() error { close(c.closed); return nil }
