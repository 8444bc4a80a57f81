package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var edge = Destination{Cluster: "edge-1", Address: "db.prod:5432"}

// target is a TCP server; serve gets each of its connections.
func target(t *testing.T, serve func(*net.TCPConn)) Dial {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); running.Wait() })
	return func(ctx context.Context, cluster, network, address string) (net.Conn, error) {
		if cluster != edge.Cluster || network != "tcp" || address != edge.Address {
			return nil, fmt.Errorf("dialled %s %s %s", cluster, network, address)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}
}

// served is a server under test, with what it has told.
type served struct {
	listeners []Listener
	stop      func() error

	mu     sync.Mutex
	events []Event
	told   chan struct{} // one for each event
}

func serve(t *testing.T, cfg Config, dial Dial, specs ...Spec) *served {
	t.Helper()
	listeners, err := ListenAll(t.Context(), specs, dial)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{listeners: listeners, told: make(chan struct{}, 1000)}
	cfg.Observe = func(e Event) {
		s.mu.Lock()
		s.events = append(s.events, e)
		s.mu.Unlock()
		s.told <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(cfg).Serve(ctx, listeners...) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// failure connects and returns what ends the connection: a reset may be there before
// connect(2) has returned.
func (s *served) failure(t *testing.T) error {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.listeners[0].Addr().String(), 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(conn)
	return err
}

func (s *served) dial(t *testing.T, i int) net.Conn {
	t.Helper()
	a := s.listeners[i].Addr()
	conn, err := net.DialTimeout(a.Network(), a.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wait returns the first event that is of a kind, once there is one.
func (s *served) wait(t *testing.T, kind Kind) Event {
	t.Helper()
	for {
		s.mu.Lock()
		events := slices.Clone(s.events)
		s.mu.Unlock()
		if i := slices.IndexFunc(events, func(e Event) bool { return e.Kind == kind }); i >= 0 {
			return events[i]
		}
		select {
		case <-s.told:
		case <-time.After(10 * time.Second):
			t.Fatalf("no event %s among %+v", kind, events)
		}
	}
}

func tcpSpec() Spec { return Spec{Network: "tcp", Listen: "127.0.0.1:0", To: edge} }

func TestCarry(t *testing.T) {
	answer := bytes.Repeat([]byte("answer"), 100_000)
	dial := target(t, func(c *net.TCPConn) {
		if got, err := io.ReadAll(c); err != nil || string(got) != "request" {
			t.Errorf("the target got %q, %v", got, err)
		}
		if _, err := c.Write(answer); err != nil {
			t.Errorf("the target: %v", err)
		}
	})
	socket := filepath.Join(t.TempDir(), "s")
	s := serve(t, Config{}, dial, tcpSpec(), Spec{Network: "unix", Listen: socket, To: edge})
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	for i, l := range s.listeners {
		conn := s.dial(t, i)
		if _, err := io.WriteString(conn, "request"); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("%v: %d bytes, %v", l.Addr(), len(got), err)
		}
	}
	e := s.wait(t, Closed)
	if e.Err != nil || e.ID == 0 || e.To != edge || e.Sent != 7 || e.Received != int64(len(answer)) || e.Took <= 0 {
		t.Errorf("event %+v", e)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestStopIsAReset(t *testing.T) {
	got := make(chan error, 1)
	dial := target(t, func(c *net.TCPConn) {
		_, err := io.Copy(c, struct{ io.Reader }{c})
		got <- err
	})
	s := serve(t, Config{}, dial, tcpSpec())
	conn := s.dial(t, 0)
	if _, err := io.WriteString(conn, "half of it"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target: %v", err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client: %v", err)
	}
	if e := s.wait(t, Closed); !errors.Is(e.Err, context.Canceled) {
		t.Errorf("event %+v", e)
	}
}

func TestRefusedIsAReset(t *testing.T) {
	why := errors.New("no such host")
	s := serve(t, Config{}, func(context.Context, string, string, string) (net.Conn, error) { return nil, why }, tcpSpec())
	if err := s.failure(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if e := s.wait(t, Refused); !errors.Is(e.Err, why) || e.To != edge {
		t.Errorf("event %+v", e)
	}
}

func TestBound(t *testing.T) {
	dial := target(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	s := serve(t, Config{MaxConnections: 2}, dial, tcpSpec())
	var open []net.Conn
	for range 2 {
		conn := s.dial(t, 0)
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	if err := s.failure(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the third: %v", err)
	}
	if e := s.wait(t, Refused); !errors.Is(e.Err, ErrTooMany) {
		t.Errorf("event %+v", e)
	}
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	s.wait(t, Closed)
	// The place is free a moment after the event.
	for {
		conn, err := net.Dial("tcp", s.listeners[0].Addr().String())
		if err == nil {
			if _, err = io.WriteString(conn, "x"); err == nil {
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			err = errors.Join(err, conn.Close())
		}
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
}

func TestEndCutsConnections(t *testing.T) {
	dial := target(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	s := serve(t, Config{}, dial, tcpSpec())
	conn := s.dial(t, 0)
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if e := s.wait(t, Closed); !errors.Is(e.Err, context.Canceled) {
		t.Errorf("event %+v", e)
	}
}

func TestTargetThatResets(t *testing.T) {
	dial := target(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})
	s := serve(t, Config{}, dial, tcpSpec())
	conn := s.dial(t, 0)
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if e := s.wait(t, Closed); !errors.Is(e.Err, syscall.ECONNRESET) {
		t.Errorf("event %+v", e)
	}
}

func TestListenAll(t *testing.T) {
	dir := t.TempDir()
	dial := Dial(func(context.Context, string, string, string) (net.Conn, error) { return nil, errors.ErrUnsupported })
	listen := func(specs ...Spec) ([]Listener, error) { return ListenAll(t.Context(), specs, dial) }
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket := filepath.Join(dir, "s")
	t.Run("all or none", func(t *testing.T) {
		_, err := listen(Spec{Network: "unix", Listen: socket, To: edge}, Spec{Network: "tcp", Listen: taken.Addr().String(), To: edge})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the first listener is left: %v", err)
		}
	})
	t.Run("a socket that nobody serves is replaced", func(t *testing.T) {
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		if _, err := listen(Spec{Network: "unix", Listen: socket, To: edge}); err == nil {
			t.Error("a socket that is served was taken")
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		listeners, err := listen(Spec{Network: "unix", Listen: socket, To: edge})
		if err != nil {
			t.Fatal(err)
		}
		if err := listeners[0].Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a file that is no socket stays", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(Spec{Network: "unix", Listen: file, To: edge}); err == nil {
			t.Error("it was replaced")
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "x" {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("what others may reach is told apart", func(t *testing.T) {
		for address, exposed := range map[string]bool{"127.0.0.1:1": false, "[::1]:1": false, "0.0.0.0:1": true, "[::]:1": true, "192.0.2.1:1": true} {
			a, err := net.ResolveTCPAddr("tcp", address)
			if err != nil || Exposed(a) != exposed {
				t.Errorf("%s: %v", address, err)
			}
		}
		if Exposed(&net.UnixAddr{Name: "x"}) {
			t.Error("a Unix socket")
		}
	})
}

func TestServeTellsOfAListenerThatBreaks(t *testing.T) {
	listeners, err := ListenAll(t.Context(), []Spec{tcpSpec(), tcpSpec()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := listeners[1].Close(); err != nil {
		t.Fatal(err)
	}
	if err := NewServer(Config{}).Serve(t.Context(), listeners...); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
