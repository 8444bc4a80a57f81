package splice_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		accepted <- c
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, server = c.(*net.TCPConn), (<-accepted).(*net.TCPConn)
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() }) // the test may have closed them
	return client, server
}

// way is client - TCP - splice - session - splice - TCP - server.
type way struct {
	client, server *net.TCPConn
	results        chan splice.Result
	pair           *muxtest.Pair
}

func newWay(t *testing.T) *way {
	p := muxtest.New(t)
	near, far := p.Open(t)
	client, clientSide := tcpPair(t)
	server, serverSide := tcpPair(t)
	w := &way{client: client, server: server, results: make(chan splice.Result, 2), pair: p}
	var running sync.WaitGroup
	running.Go(func() { w.results <- splice.Join(clientSide, near, wire.HopClient) })
	running.Go(func() { w.results <- splice.Join(far, serverSide, wire.HopTarget) })
	t.Cleanup(running.Wait)
	return w
}

func TestHalfCloseThroughTheTunnel(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		t.Run("N2: a side that sends and closes its half receives 1 MiB afterwards", func(t *testing.T) {
			w := newWay(t)
			a, b := w.client, w.server
			if reverse {
				a, b = b, a
			}
			if _, err := a.Write([]byte("request")); err != nil {
				t.Fatal(err)
			}
			if err := a.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(b); err != nil || string(got) != "request" {
				t.Fatalf("%q, %v", got, err)
			}
			answer := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			var sent sync.WaitGroup
			sent.Go(func() {
				if _, err := b.Write(answer); err != nil {
					t.Errorf("write: %v", err)
				}
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, answer) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			sent.Wait()
			for range 2 {
				if r := <-w.results; r.Err != nil || r.AToB+r.BToA != int64(len("request")+len(answer)) {
					t.Errorf("result %+v", r)
				}
			}
		})
	}
}

func TestAbruptEndIsNotAnEnd(t *testing.T) {
	t.Run("N2: a reset at one end is a reset at the other", func(t *testing.T) {
		w := newWay(t)
		if _, err := w.server.Write([]byte("partial")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(w.client, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if err := w.server.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := w.server.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, w.client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the other end read %d bytes and %v; want a reset", n, err)
		}
		for range 2 {
			if r := <-w.results; r.Err == nil {
				t.Error("a splice ended without an error")
			}
		}
	})
	t.Run("N2: the loss of the tunnel is a reset at both ends", func(t *testing.T) {
		w := newWay(t)
		w.pair.Stop()
		for _, c := range []net.Conn{w.client, w.server} {
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
		}
		var e *mux.Error
		if r := <-w.results; !errors.As(r.Err, &e) || e.Code != wire.CodeLinkLost {
			t.Errorf("result: %v", r.Err)
		}
		<-w.results
	})
}

func TestReaderThatGoesAway(t *testing.T) {
	t.Run("N2: a client that closes stops an endless server", func(t *testing.T) {
		w := newWay(t)
		stopped := make(chan error, 1)
		go func() {
			block := make([]byte, 64<<10)
			for {
				if _, err := w.server.Write(block); err != nil {
					stopped <- err
					return
				}
			}
		}()
		if _, err := io.ReadFull(w.client, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := w.client.Close(); err != nil {
			t.Fatal(err)
		}
		<-stopped
		<-w.results
		<-w.results
	})
}
