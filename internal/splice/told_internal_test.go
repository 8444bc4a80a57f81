package splice

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestErrorThatAWriteHas is about the moment in which a write has taken the error of a
// socket and the reader of the same socket, which gets none any more, has its end.
func TestErrorThatAWriteHas(t *testing.T) {
	socket, far := socketPair(t)
	if err := errors.Join(far.SetLinger(0), far.Close()); err != nil {
		t.Fatal(err)
	}
	_, failure := socket.Write([]byte("x"))
	if _, err := socket.Read(make([]byte, 1)); !errors.Is(failure, syscall.ECONNRESET) || !errors.Is(err, io.EOF) {
		t.Fatalf("write: %v; read: %v; want a reset that is told once", failure, err)
	}
	synctest.Test(t, func(t *testing.T) {
		pair := muxtest.New(t)
		client, near := pair.Open(t)
		j := &joint{hop: wire.HopTarget, told: make(chan struct{})}
		read := make(chan error, 1)
		go func() { read <- j.end(near, socket, nil) }()
		synctest.Wait()
		if err := j.end(socket, near, failure); err != nil {
			t.Errorf("the writer: %v", err)
		}
		if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the reader: %v", err)
		}
		if err := j.finish(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("in the end: %v", err)
		}
		if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v", err)
		}
		pair.Stop()
	})
}

// TestWhoFailed is about a destination that fails when all that it has sent went on before:
// that is not lost with it.
func TestWhoFailed(t *testing.T) {
	pair := muxtest.New(t, func(dialler, _ *mux.Config) { dialler.InitialWindow, dialler.MinWindow = 16<<10, 16<<10 })
	client, near := pair.Open(t)
	socket, _ := socketPair(t)
	answer := make([]byte, 30<<10) // more than there is credit for, and no more than a queue takes
	if _, err := near.Write(answer); err != nil {
		t.Fatal(err)
	}
	j := &joint{hop: wire.HopTarget, told: make(chan struct{})}
	if err := j.end(near, socket, nil); err != nil {
		t.Fatal(err)
	}
	j.oneIsOver()
	failure := &net.OpError{Op: "write", Net: "tcp", Err: syscall.ETIMEDOUT}
	if err := j.end(socket, near, failure); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Error(err)
	}
	got, err := io.ReadAll(client)
	if failed := (*mux.Error)(nil); len(got) != len(answer) || !errors.As(err, &failed) {
		t.Errorf("the client got %d of %d bytes, and %v", len(got), len(answer), err)
	}
}

// socketPair returns both ends of a TCP connection.
func socketPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() }) // the test may have closed them
	return a.(*net.TCPConn), b.(*net.TCPConn)
}
