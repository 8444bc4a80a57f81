// Package splice joins two connections: bytes in both directions, each half
// closed on its own, and an abrupt end told to the other side as such.
package splice

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Conn is a connection whose halves close separately, such as [*net.TCPConn],
// [*mux.Session] and [*tls.Conn] (which cannot close its reading half).
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Result says how a splice went.
type Result struct {
	// AToB and BToA count the bytes of each direction.
	AToB, BToA int64
	// Err is what ended a direction before its end, or nil.
	Err error
}

// Join copies between a and b until both directions are over, and closes both.
// The end of a direction is passed on as a half-close. When a side fails, the
// other is reset: a [*mux.Session] with hop and the reason, a TCP connection with
// RST.
func Join(a, b Conn, hop wire.Hop) Result {
	var r Result
	var errA, errB error
	var other sync.WaitGroup
	var reset sync.Once
	abandon := func(err error) {
		reset.Do(func() {
			abort(a, hop, err)
			abort(b, hop, err)
		})
	}
	other.Go(func() { r.BToA, errB = half(a, b, abandon) })
	r.AToB, errA = half(b, a, abandon)
	other.Wait()
	r.Err = errors.Join(errA, errB)
	closeErr := errors.Join(ignoreClosed(a.Close()), ignoreClosed(b.Close()))
	if r.Err == nil {
		r.Err = closeErr
	}
	return r
}

// half copies one direction to its end.
func half(dst, src Conn, abandon func(error)) (int64, error) {
	n, err := move(dst, src)
	switch {
	case err == nil:
		// A peer that has gone away needs no half-close.
		return n, ignoreClosed(dst.CloseWrite())
	case errors.Is(err, syscall.EPIPE):
		// The reader at dst went away; the other direction may go on.
		if r, ok := src.(interface{ CloseRead() error }); ok {
			return n, ignoreClosed(r.CloseRead())
		}
		return n, nil
	case errors.Is(err, net.ErrClosed):
		return n, nil // the other direction failed and said so
	default:
		abandon(err)
		return n, err
	}
}

// move copies from src until its end. A session on either side does it, since it
// knows how to do it without copies and without memory while nothing moves.
func move(dst, src Conn) (int64, error) {
	if s, ok := dst.(*mux.Session); ok {
		return s.ReadFrom(src)
	}
	return io.Copy(dst, src)
}

// abort ends a connection so that its peer does not take the end for a clean
// one.
func abort(c Conn, hop wire.Hop, err error) {
	switch c := c.(type) {
	case *mux.Session:
		c.Reset(codeOf(err), hop, err.Error())
	case *net.TCPConn:
		_ = c.SetLinger(0) // fails on a closed connection only
	}
	_ = c.Close() // may be closed already
}

func codeOf(err error) wire.Code {
	var e *mux.Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, syscall.ECONNRESET):
		return wire.CodeConnectionReset
	default:
		return wire.CodeInternal
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOTCONN) {
		return nil
	}
	return err
}
