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
// RST, also one that is below others with a method NetConn.
func Join(a, b Conn, hop wire.Hop) Result {
	j := &joint{hop: hop}
	var r Result
	var errA, errB error
	var running sync.WaitGroup
	running.Add(2)
	toA := func() {
		j.half(a, b, func(n int64, err error) {
			r.BToA, errB = n, err
			running.Done()
		})
	}
	toB := func() {
		j.half(b, a, func(n int64, err error) {
			r.AToB, errA = n, err
			running.Done()
		})
	}
	// What comes out of a session needs nobody to wait for it.
	switch {
	case isSession(b):
		toA()
		toB()
	case isSession(a):
		toB()
		toA()
	default:
		go toA()
		toB()
	}
	running.Wait()
	r.Err = errors.Join(errA, errB)
	closeErr := errors.Join(ignoreClosed(a.Close()), ignoreClosed(b.Close()))
	if r.Err == nil {
		r.Err = closeErr
	}
	return r
}

func isSession(c Conn) bool {
	_, ok := c.(*mux.Session)
	return ok
}

// joint is what the directions have in common.
type joint struct {
	hop   wire.Hop
	reset sync.Once
}

// half copies one direction to its end and then calls done. A session on either
// side does the copying, since it knows how to do it without copies and without
// memory while nothing moves; as the source it needs no goroutine either, and half
// returns at once.
func (j *joint) half(dst, src Conn, done func(int64, error)) {
	over := func(n int64, err error) { done(n, j.end(dst, src, err)) }
	if s, ok := src.(*mux.Session); ok {
		s.Pump(dst, over)
		return
	}
	if s, ok := dst.(*mux.Session); ok {
		over(s.ReadFrom(src))
		return
	}
	over(io.Copy(dst, src))
}

// end passes on how a direction ended, and returns what was wrong with it.
func (j *joint) end(dst, src Conn, err error) error {
	switch {
	case err == nil:
		// A peer that has gone away needs no half-close.
		return ignoreClosed(dst.CloseWrite())
	case errors.Is(err, syscall.EPIPE):
		// The reader at dst went away; the other direction may go on.
		if r, ok := src.(interface{ CloseRead() error }); ok {
			return ignoreClosed(r.CloseRead())
		}
		return nil
	case errors.Is(err, net.ErrClosed):
		return nil // the other direction failed and said so
	default:
		j.reset.Do(func() {
			abort(dst, j.hop, err)
			abort(src, j.hop, err)
		})
		return err
	}
}

// abort ends a connection so that its peer does not take the end for a clean
// one.
func abort(c Conn, hop wire.Hop, err error) {
	// A session, or a client's connection, which has one.
	if s, ok := c.(interface {
		Reset(code wire.Code, hop wire.Hop, message string)
	}); ok {
		s.Reset(codeOf(err), hop, err.Error())
	}
	for below := net.Conn(c); below != nil; {
		if tcp, ok := below.(interface{ SetLinger(seconds int) error }); ok {
			_ = tcp.SetLinger(0) // fails on a closed connection only
			_ = below.Close()    // without the close_notify of TLS, which is an orderly end
		}
		wrapper, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = wrapper.NetConn()
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
