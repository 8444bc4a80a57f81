package carry

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHalfClose(t *testing.T) {
	forward := start(t, "forward", "edge-1", "0:web.prod:7000", "0:web.prod:7001", "0:web.prod:7002", "0:web.prod:7004", "-v")
	dial := func(t *testing.T, target string) *net.TCPConn {
		t.Helper()
		conn, err := net.Dial("tcp", forward.listener(t, "edge-1 "+target))
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
		return conn.(*net.TCPConn)
	}
	text := strings.Repeat("0123456789abcdef", 1<<16)
	t.Run("N4,F2: forward: the target's answer comes after the caller's end", func(t *testing.T) {
		conn := dial(t, "web.prod:7000")
		_, err := io.WriteString(conn, text)
		must(t, err)
		must(t, conn.CloseWrite())
		if got, err := io.ReadAll(conn); err != nil || string(got) != "got "+text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("N4,F2: connect: the target's answer comes after the end of standard input", func(t *testing.T) {
		cmd := command(t.Context(), "connect", "edge-1", "web.prod:7000")
		cmd.Stdin = strings.NewReader(text)
		if out, err := output(cmd); err != nil || out != "got "+text {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
	t.Run("N4,F2: forward: the target ends its half first, and gets what is sent then", func(t *testing.T) {
		conn := dial(t, "web.prod:7001")
		if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
		_, err := io.WriteString(conn, "late")
		must(t, err)
		must(t, conn.CloseWrite())
		wantLate(t)
	})
	t.Run("N4,F2: connect: the target ends its half first, and gets what is sent then", func(t *testing.T) {
		cmd := command(t.Context(), "connect", "edge-1", "web.prod:7001")
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		must(t, cmd.Start())
		if got, err := io.ReadAll(out); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
		_, err = io.WriteString(in, "late")
		must(t, err)
		must(t, in.Close())
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &stderr)
		}
		wantLate(t)
	})
	t.Run("N4: forward: the answer of a target that closes while more is sent comes, and then a reset", func(t *testing.T) {
		conn := dial(t, "web.prod:7004")
		sent := make(chan error, 1)
		go func() { _, err := io.Copy(conn, endless{}); sent <- err }()
		got, err := io.ReadAll(conn)
		// A socket tells once that it was reset, the reader or the writer.
		if err = errors.Join(err, <-sent); string(got) != noMore || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d of %d bytes, %v", len(got), len(noMore), err)
		}
	})
	t.Run("N4: connect: the answer of a target that closes while more is sent comes, and then exit code 9", func(t *testing.T) {
		cmd := command(t.Context(), "connect", "edge-1", "web.prod:7004")
		cmd.Stdin = endless{}
		if out, err := output(cmd); exitCode(err) != 9 || out != noMore {
			t.Errorf("%d of %d bytes, %v", len(out), len(noMore), err)
		}
	})
	t.Run("N4: forward: a caller that is cut is no end to the target", func(t *testing.T) {
		conn := dial(t, "web.prod:7001")
		if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
		must(t, conn.SetLinger(0))
		must(t, conn.Close())
		select {
		case got := <-the.late:
			if !strings.Contains(got, "connection reset by peer") {
				t.Errorf("the target got %q, want a reset", got)
			}
		case <-time.After(30 * time.Second):
			t.Error("the target was not told")
		}
	})
	t.Run("N4,N10: forward: a target that refuses is a reset, and a line says why", func(t *testing.T) {
		refused := start(t, "forward", "edge-1", "0:web.prod:7009")
		conn, err := net.Dial("tcp", refused.listener(t, "edge-1 web.prod:7009"))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		if got, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", got, err)
		}
		refused.await(t, `web\.prod:7009: connection refused`)
	})
}

// endless is what never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func wantLate(t *testing.T) {
	t.Helper()
	select {
	case got := <-the.late:
		if got != "late <nil>" {
			t.Errorf("the target got %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("the target got nothing")
	}
}
