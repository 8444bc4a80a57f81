package resilience

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mebibyte is what crosses after one half is closed.
const mebibyte = 1 << 20

func testHalfClose(t *testing.T, l *lab, r *raw) {
	t.Run("N2: a client that has closed its writing side still gets 1 MiB", func(t *testing.T) {
		caller, target := r.ends(t)
		served := make(chan error, 1)
		go answerAfterEnd(l, target, served)
		check(t, l.pattern.write(caller, 100_000, new(atomic.Int64)))
		check(t, caller.CloseWrite())
		check(t, l.pattern.verifyAll(caller, mebibyte))
		check(t, <-served)
	})
	t.Run("N2: a server that has closed its writing side still gets 1 MiB", func(t *testing.T) {
		caller, target := r.ends(t)
		served := make(chan error, 1)
		go answerAfterEnd(l, caller, served)
		check(t, l.pattern.write(target, 100_000, new(atomic.Int64)))
		check(t, target.CloseWrite())
		check(t, l.pattern.verifyAll(target, mebibyte))
		check(t, <-served)
	})
	t.Run("N2: everything that a client writes before Close arrives", func(t *testing.T) {
		caller, target := r.ends(t)
		wrote := make(chan error, 1)
		go writeAndClose(l, caller, wrote)
		check(t, l.pattern.verifyAll(target, 8*mebibyte))
		check(t, <-wrote)
	})
	t.Run("N2: everything that a server writes before Close arrives", func(t *testing.T) {
		caller, target := r.ends(t)
		wrote := make(chan error, 1)
		go writeAndClose(l, target, wrote)
		check(t, l.pattern.verifyAll(caller, 8*mebibyte))
		check(t, <-wrote)
	})
	t.Run("N2: a reset by the target is seen as one, by readers and writers", func(t *testing.T) {
		caller, target := r.ends(t)
		check(t, l.pattern.write(caller, 1000, new(atomic.Int64)))
		check(t, l.pattern.verify(target, 0, 1000))
		check(t, target.SetLinger(0)) // Close sends RST
		check(t, target.Close())
		n, err := caller.Read(make([]byte, 1))
		if n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read = %d, %v; want a reset", n, err)
		}
		t.Logf("Read: %v", err)
		if _, err := caller.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write: %v; want a reset", err)
		}
	})
	t.Run("N2: what arrived before the target's reset can still be told from a complete answer", func(t *testing.T) {
		caller, target := r.ends(t)
		check(t, l.pattern.write(target, 1000, new(atomic.Int64)))
		check(t, l.pattern.verify(caller, 0, 1000))
		check(t, target.SetLinger(0))
		check(t, target.Close())
		if got, err := io.ReadAll(caller); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("ReadAll = %d bytes, %v; want a reset", len(got), err)
		}
	})
	t.Run("N2: a client that hangs up makes the target's writes fail", func(t *testing.T) {
		caller, target := r.ends(t)
		check(t, caller.Close())
		// What it sends at first is discarded, so that it can read on to its own end. Then it
		// is reset.
		check(t, target.SetWriteDeadline(time.Now().Add(30*time.Second)))
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var err error
		for ; err == nil; <-tick.C {
			err = l.pattern.write(target, 64<<10, new(atomic.Int64))
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the target's writes: %v", err)
		}
	})
}

type writeCloser interface {
	net.Conn
	CloseWrite() error
}

// answerAfterEnd reads 100000 bytes and the end that follows, then sends 1 MiB and
// its own end. It sends one result.
func answerAfterEnd(l *lab, c writeCloser, result chan<- error) {
	result <- errors.Join(
		l.pattern.verifyAll(c, 100_000),
		l.pattern.write(c, mebibyte, new(atomic.Int64)),
		c.CloseWrite(),
	)
}

// writeAndClose writes 8 MiB and closes at once. It sends one result.
func writeAndClose(l *lab, c net.Conn, result chan<- error) {
	result <- errors.Join(l.pattern.write(c, 8*mebibyte, new(atomic.Int64)), c.Close())
}
