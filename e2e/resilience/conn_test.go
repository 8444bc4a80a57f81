package resilience

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func testConn(t *testing.T, r *raw) {
	t.Run("N4: a session and its target pass the standard tests of a net.Conn", func(t *testing.T) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			caller, target, err := r.pipe(ctx)
			if err != nil {
				return nil, nil, nil, err
			}
			return caller, target, func() {
				_ = caller.Close() // the test may have closed them
				_ = target.Close()
			}, nil
		})
	})
	t.Run("N4: a read deadline ends a wait, and the session works afterwards", func(t *testing.T) {
		caller, target := r.ends(t)
		check(t, caller.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		n, err := caller.Read(make([]byte, 1))
		wantTimeout(t, n, err)
		check(t, caller.SetReadDeadline(time.Time{}))
		_, err = target.Write([]byte("late"))
		check(t, err)
		got := make([]byte, 4)
		if _, err := io.ReadFull(caller, got); err != nil || string(got) != "late" {
			t.Errorf("after the deadline: %q, %v", got, err)
		}
	})
	t.Run("N4: a write deadline ends a wait for a target that does not read", func(t *testing.T) {
		caller, _ := r.ends(t)
		// Every buffer on the way takes its part before a write has to wait.
		const enough = 256 << 20
		text := make([]byte, enough)
		n := 0
		for range 3 { // a machine that stands still may let a deadline pass before the write
			check(t, caller.SetWriteDeadline(time.Now().Add(2*time.Second)))
			var err error
			n, err = caller.Write(text)
			wantTimeout(t, n, err)
			if n > 0 {
				break
			}
		}
		if n == 0 || n == enough {
			t.Errorf("%d bytes were written", n)
		}
		t.Logf("%d KiB were taken", n>>10)
	})
	t.Run("N4: Close ends a waiting Read with net.ErrClosed, and so does everything after it", func(t *testing.T) {
		caller, _ := r.ends(t)
		read := make(chan error, 1)
		go readOne(caller, read)
		check(t, caller.Close())
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the waiting Read: %v", err)
		}
		_, readErr := caller.Read(make([]byte, 1))
		_, writeErr := caller.Write([]byte("x"))
		for name, err := range map[string]error{
			"Read": readErr, "Write": writeErr, "Close": caller.Close(),
			"CloseWrite": caller.CloseWrite(), "SetDeadline": caller.SetDeadline(time.Now()),
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v, want net.ErrClosed", name, err)
			}
		}
	})
	t.Run("N4: a session has the addresses of its tunnel", func(t *testing.T) {
		caller, _ := r.ends(t)
		if got := caller.LocalAddr().String(); got != r.hub.port.Addr() {
			t.Errorf("local address %s, want the hub's %s", got, r.hub.port.Addr())
		}
		host, _, err := net.SplitHostPort(caller.RemoteAddr().String())
		if err != nil || host != r.hub.lab.private.Outside.String() {
			t.Errorf("remote address %s, want the agent's router %s", caller.RemoteAddr(), r.hub.lab.private.Outside)
		}
	})
}

func wantTimeout(t *testing.T, n int, err error) {
	t.Helper()
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%d, %v; want a timeout", n, err)
	}
}

// readOne waits for one byte and sends one result.
func readOne(c net.Conn, result chan<- error) {
	_, err := c.Read(make([]byte, 1))
	result <- err
}
