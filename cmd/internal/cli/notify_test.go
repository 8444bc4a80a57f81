package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// manager listens as a service manager does.
func manager(t *testing.T, address string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv(notifySocket, address)
	return conn
}

// told reads the next state.
func told(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 256)
	n, err := conn.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[:n])
}

func TestNotify(t *testing.T) {
	for name, address := range map[string]string{
		"a socket in a folder":           filepath.Join(t.TempDir(), "notify"),
		"a socket of the abstract space": "@culvert-" + filepath.Base(t.TempDir()),
	} {
		t.Run(name+": ready, reloading and stopping are told in their order", func(t *testing.T) {
			conn := manager(t, address)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- WithReload(ctx, func() error { return errors.New("a file is broken") }, func(ctx context.Context) error {
					Ready()
					<-ctx.Done()
					return nil
				})
			}()
			if state := told(t, conn); state != "READY=1" {
				t.Errorf("at first: %s", state)
			}
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if state := told(t, conn); state != "RELOADING=1" {
				t.Errorf("at SIGHUP: %s", state)
			}
			if state := told(t, conn); state != "READY=1" {
				t.Errorf("after a reload that failed, which leaves in force what was there: %s", state)
			}
			cancel()
			if state := told(t, conn); state != "STOPPING=1" {
				t.Errorf("at the end: %s", state)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a manager that is away ends nothing", func(t *testing.T) {
		t.Setenv(notifySocket, filepath.Join(t.TempDir(), "nobody"))
		if err := WithReload(t.Context(), func() error { return nil }, func(context.Context) error { Ready(); return nil }); err != nil {
			t.Error(err)
		}
	})
}
