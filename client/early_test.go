package client_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

// unreachable returns a client whose hub is lost once a first connection has been made, and
// an early connection that cannot be opened.
func unreachable(t *testing.T) net.Conn {
	t.Helper()
	hub := culverttest.Start(t, culverttest.Config{})
	l := &counted{Listener: listen(t)}
	go l.relay(t, hub.URL[len("https://"):])
	cfg := hub.Config()
	cfg.Hub, cfg.ServerName = "https://"+l.Addr().String(), "localhost"
	cfg.Patience = time.Minute
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	known, err := c.DialContext(t.Context(), "test", "tcp", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	conn, err := c.DialEarly(t.Context(), "test", "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	l.Close()
	l.cut()
	if _, err := known.Read(make([]byte, 1)); err == nil {
		t.Fatal("the hub is not lost")
	}
	return conn
}

func TestEarlyWhileTheHubIsAway(t *testing.T) {
	conn := unreachable(t)
	// Both wait for the hub, one of them for the other.
	var waiting sync.WaitGroup
	results := make(chan error, 2)
	waiting.Go(func() {
		_, err := conn.Write([]byte("x"))
		results <- err
	})
	waiting.Go(func() {
		_, err := conn.Read(make([]byte, 1))
		results <- err
	})
	t.Run("N4: a deadline that is set while others wait for the open is for them", func(t *testing.T) {
		if err := conn.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
	})
	waiting.Wait()
	t.Run("N4: Close ends what waits for the open", func(t *testing.T) {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		waiting.Go(func() {
			_, err := conn.Write([]byte("x"))
			results <- err
		})
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		for _, err := range []error{<-results, conn.Close(), conn.SetDeadline(time.Time{}), second(conn.Read(make([]byte, 1)))} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
	waiting.Wait()
}

func second[T any](_ T, err error) error { return err }

func TestEarlyCloseDelivers(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	c := hub.Client(t)
	for range 20 {
		l := listen(t)
		conn, err := c.DialEarly(t.Context(), "test", "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("a message")); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil { // before the target is connected
			t.Fatal(err)
		}
		if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatalf("what was written is lost: %v", err)
		}
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "a message" {
			t.Errorf("got %q, %v", got, err)
		}
		far.Close()
	}
}

func TestEarlyFailure(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	c := hub.Client(t)
	closed := listen(t)
	closed.Close()
	conn, err := c.DialEarly(t.Context(), "test", "tcp", closed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("the first Close: %v", err)
	}
	for what, err := range map[string]error{"close": conn.Close(), "read": second(conn.Read(make([]byte, 1))), "write": second(conn.Write([]byte("x")))} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}
