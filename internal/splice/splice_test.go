package splice_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

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

// way is client - TCP - splice - session - splice - TCP - server, or with a relay
// a splice of two sessions in the middle.
type way struct {
	client, server *net.TCPConn
	results        chan splice.Result // one of each splice
	splices        int
	pair           *muxtest.Pair
}

// ways runs a test without and with a relay.
func ways(t *testing.T, title string, test func(*testing.T, *way)) {
	t.Run(title, func(t *testing.T) { test(t, newWay(t, 1)) })
	t.Run(title+", through a relay", func(t *testing.T) { test(t, newWay(t, 2)) })
}

func newWay(t *testing.T, links int) *way {
	client, clientSide := tcpPair(t)
	server, serverSide := tcpPair(t)
	w := &way{client: client, server: server, results: make(chan splice.Result, links+1), splices: links + 1}
	var running sync.WaitGroup
	var last splice.Conn = clientSide
	hop := wire.HopClient
	for range links {
		w.pair = muxtest.New(t)
		near, far := w.pair.Open(t)
		from, at := last, hop
		running.Go(func() { w.results <- splice.Join(from, near, at) })
		last, hop = far, wire.HopHub
	}
	running.Go(func() { w.results <- splice.Join(last, serverSide, wire.HopTarget) })
	t.Cleanup(running.Wait)
	return w
}

func TestHalfCloseThroughTheTunnel(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		ways(t, "N2: a side that sends and closes its half receives 1 MiB afterwards", func(t *testing.T, w *way) {
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
			for range w.splices {
				if r := <-w.results; r.Err != nil || r.AToB+r.BToA != int64(len("request")+len(answer)) {
					t.Errorf("result %+v", r)
				}
			}
		})
	}
}

func TestAbruptEndIsNotAnEnd(t *testing.T) {
	ways(t, "N2: a reset at one end is a reset at the other", func(t *testing.T, w *way) {
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
		for range w.splices {
			if r := <-w.results; r.Err == nil {
				t.Error("a splice ended without an error")
			}
		}
	})
	ways(t, "N2: the loss of the tunnel is a reset at both ends", func(t *testing.T, w *way) {
		w.pair.Stop()
		for _, c := range []net.Conn{w.client, w.server} {
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
		}
		for range w.splices {
			if r := <-w.results; r.Err == nil {
				t.Error("a splice ended without an error")
			}
		}
	})
}

func TestReaderThatGoesAway(t *testing.T) {
	ways(t, "N2: a client that closes stops an endless server", func(t *testing.T, w *way) {
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
		for range w.splices {
			<-w.results
		}
	})
}

// TestAnswerBeforeTheReset is about servers that answer and close while more is on its way
// to them, as HTTP servers do that refuse an upload: they reset the connection, behind the
// answer.
func TestAnswerBeforeTheReset(t *testing.T) {
	ways(t, "N2: the answer arrives, and then the reset", func(t *testing.T, w *way) {
		sent := make(chan error, 1)
		go func() {
			var err error
			for block := make([]byte, 64<<10); err == nil; {
				_, err = w.client.Write(block)
			}
			sent <- err
		}()
		if _, err := io.ReadFull(w.server, make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		answer := bytes.Repeat([]byte("no more! "), 3000)
		if _, err := w.server.Write(answer); err != nil {
			t.Fatal(err)
		}
		if err := w.server.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(w.client)
		// A socket tells once that it was reset, the reader or the writer.
		if err = errors.Join(err, <-sent); !bytes.Equal(got, answer) || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %d of %d bytes, and %v; want all, and then a reset", len(got), len(answer), err)
		}
		for range w.splices {
			if r := <-w.results; r.Err == nil {
				t.Error("a splice ended without an error")
			}
		}
	})
}

// wrapped is a connection with something around it, as a server hands over that of a
// request which a session carries.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func (w wrapped) CloseWrite() error { return w.Conn.(*mux.Session).CloseWrite() }

func TestSessionBelowOthers(t *testing.T) {
	join := func(t *testing.T) (client *mux.Session, server *net.TCPConn, ended <-chan splice.Result) {
		server, serverSide := tcpPair(t)
		client, far := muxtest.New(t).Open(t)
		result := make(chan splice.Result, 1)
		go func() { result <- splice.Join(wrapped{far}, serverSide, wire.HopTarget) }()
		return client, server, result
	}
	t.Run("N2: it is reset when the other side is", func(t *testing.T) {
		client, server, ended := join(t)
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := server.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadAll(client)
		var e *mux.Error
		if !errors.As(err, &e) || e.Code != wire.CodeConnectionReset {
			t.Errorf("the client got %v", err)
		}
		if r := <-ended; r.Err == nil {
			t.Error("the splice says nothing of it")
		}
	})
	t.Run("N2: its peer is told that nobody reads", func(t *testing.T) {
		client, near := muxtest.New(t).Open(t)
		target, far := muxtest.New(t).Open(t)
		ended := make(chan splice.Result, 1)
		go func() { ended <- splice.Join(wrapped{near}, far, wire.HopTarget) }()
		if err := target.CloseRead(); err != nil {
			t.Fatal(err)
		}
		if err := client.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var err error
		for block := make([]byte, 64<<10); err == nil; {
			_, err = client.Write(block)
		}
		if !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the client wrote until %v", err)
		}
		if err := errors.Join(target.Close(), client.Close()); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

// program is a session of a program, as it has one for a connection, and the server that it
// leads to; ended gives the result of the splice between.
func program(t *testing.T) (session *mux.Session, server *net.TCPConn, ended <-chan splice.Result) {
	t.Helper()
	server, serverSide := tcpPair(t)
	session, far := muxtest.New(t).Open(t)
	result := make(chan splice.Result, 1)
	go func() { result <- splice.Join(far, serverSide, wire.HopTarget) }()
	return session, server, result
}

// TestCallerThatIsGone is about callers that close, as a program's connection does,
// while the server still sends: what they sent is for the server to read, what it sends
// is for nobody, and it must not be left alone with that.
func TestCallerThatIsGone(t *testing.T) {
	t.Run("N2: an echo that waits to send gets the rest, and then the end", func(t *testing.T) {
		t.Parallel()
		session, server, ended := program(t)
		echoed := make(chan error, 1)
		var got int64
		go func() {
			var err error
			got, err = io.Copy(server, struct{ io.Reader }{server})
			echoed <- errors.Join(err, server.Close())
		}()
		// Until nothing moves, since nobody reads: then the echo waits to send.
		var sent int64
		for block, moving := make([]byte, 64<<10), true; moving; {
			if err := session.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, err := session.Write(block)
			sent += int64(n)
			moving = err == nil
		}
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-echoed; err != nil || got != sent {
			t.Errorf("the echo got %d of %d bytes, %v", got, sent, err)
		}
		if r := <-ended; r.Err != nil {
			t.Errorf("the splice: %v", r.Err)
		}
	})
	t.Run("N2: a server that says nothing and stays gets the end, and is not waited for", func(t *testing.T) {
		t.Parallel()
		session, server, ended := program(t)
		if _, err := session.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(server); string(text) != "hello" || err != nil {
			t.Errorf("the server got %q, %v", text, err)
		}
		if r := <-ended; r.Err != nil {
			t.Errorf("the splice: %v", r.Err)
		}
	})
	t.Run("N2: a server that sends for ever is reset", func(t *testing.T) {
		t.Parallel()
		session, server, ended := program(t)
		sent := make(chan error, 1)
		go func() {
			var err error
			for block := make([]byte, 64<<10); err == nil; {
				_, err = server.Write(block)
			}
			sent <- err
		}()
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the server: %v", err)
		}
		if r := <-ended; r.Err != nil {
			t.Errorf("the splice: %v", r.Err)
		}
	})
}
