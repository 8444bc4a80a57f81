// Package splice joins two connections: bytes in both directions, each half
// closed on its own, and an abrupt end told to the other side as such.
package splice

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Conn is a connection whose halves close separately, such as [*net.TCPConn],
// [*mux.Session] and [*tls.Conn] (which cannot close its reading half).
type Conn interface {
	net.Conn
	CloseWrite() error
}

// muxed is a session, or a client's connection, which has one: its peer can be told that
// nobody reads, and why it ends, and it knows its own failure.
type muxed interface {
	CloseRead() error
	Err() error
	Fail(code wire.Code, hop wire.Hop, message string)
	Reset(code wire.Code, hop wire.Hop, message string)
}

// socket is a TCP connection.
type socket interface {
	net.Conn
	syscall.Conn
	SetLinger(seconds int) error
}

// within returns c, or what it has below, where that is a T. A request inside of a session
// hands over its connection with what a server has put around it, as TLS is around a socket.
func within[T any](c net.Conn) (found T, ok bool) {
	for c != nil {
		if found, ok = c.(T); ok {
			return found, true
		}
		wrapper, wraps := c.(interface{ NetConn() net.Conn })
		if !wraps {
			break
		}
		c = wrapper.NetConn()
	}
	return found, false
}

// stoppable is a session, or a client's connection: what copies into it ends when nobody
// reads that any more, though nothing comes from the source.
type stoppable interface {
	ReadFromConn(src net.Conn) (int64, error)
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
// other gets what came from it until then and is reset: a [*mux.Session] with hop and the
// reason, a TCP connection with RST, also those that are below others with a method
// NetConn. On Linux what is still in the socket goes out before, within lingerTime.
//
// When nobody reads one side any more, what the other sends is discarded, so that it can
// read to its own end what is still on its way there, as after the close of a TCP
// connection; it has lingerTime for that after the last of it, and is reset then.
func Join(a, b Conn, hop wire.Hop) Result {
	j := &joint{hop: hop, told: make(chan struct{})}
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
	r.Err = cmp.Or(errors.Join(errA, errB), j.finish())
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

// lingerTime is how long a peer may go on to send to a side that nobody reads once it has
// got everything itself. An end that comes at once could destroy what it has yet to read.
const lingerTime = 5 * time.Second

// joint is what the directions have in common.
type joint struct {
	hop   wire.Hop
	reset sync.Once
	told  chan struct{} // closed once a direction has said how it ended

	mu         sync.Mutex  // guards what follows
	over       bool        // one direction is
	discarding Conn        // nil where nothing is
	failed     Conn        // what could not be written to; nil where nothing failed
	failure    error       // of failed, until the other direction has told it
	late       *time.Timer // resets both when that does not end; nil without failure
}

// half copies one direction to its end and then calls done. A session on either
// side does the copying, since it knows how to do it without copies and without
// memory while nothing moves; as the source it needs no goroutine either, and half
// returns at once.
func (j *joint) half(dst, src Conn, done func(int64, error)) {
	over := func(n int64, err error) {
		err = j.end(dst, src, err)
		j.oneIsOver()
		done(n, err)
	}
	if s, ok := src.(*mux.Session); ok {
		s.Pump(dst, over)
		return
	}
	if s, ok := dst.(stoppable); ok {
		over(s.ReadFromConn(src))
		return
	}
	over(io.Copy(dst, src))
}

// end passes on how a direction ended, and returns what was wrong with it.
func (j *joint) end(dst, src Conn, err error) error {
	writing := false
	if err == nil {
		err = j.failureOf(src)
	} else {
		writing = ofWriting(src, err)
	}
	if err == nil {
		// A peer that has gone away needs no half-close.
		err, writing = ignoreClosed(dst.CloseWrite()), true
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE):
		// The reader at dst went away; the other direction may go on.
		j.stop(src)
		return nil
	case errors.Is(err, net.ErrClosed):
		return nil // the other direction failed and said so
	case writing && j.leave(dst, src, err):
		// What dst has sent before is still to be read: the other direction ends with
		// the failure of its own.
		j.stop(src)
		return nil
	case writing:
		return j.abort(src, dst, err)
	default:
		return j.abort(dst, src, err)
	}
}

// abort ends both sides for a failure of src, and returns it; nil where that was done.
func (j *joint) abort(dst, src Conn, err error) (first error) {
	j.reset.Do(func() {
		abort(src, j.hop, err, muxed.Reset)
		settle(dst)
		abort(dst, j.hop, err, muxed.Fail)
		first = err
	})
	return first
}

// settleLook is how often settle looks.
const settleLook = 5 * time.Millisecond

// settle waits, for lingerTime at most, until the peer of a socket has what was written: a
// reset would destroy what is still in the socket.
func settle(c net.Conn) {
	tcp, ok := within[socket](c)
	if !ok || unsent(tcp) == 0 {
		return
	}
	look, late := time.NewTicker(settleLook), time.NewTimer(lingerTime)
	defer look.Stop()
	defer late.Stop()
	for unsent(tcp) > 0 {
		select {
		case <-look.C:
		case <-late.C:
			return
		}
	}
}

// ofWriting tells whether what came from src ended because of its destination.
func ofWriting(src Conn, err error) bool {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op == "write" || op.Op == "writev"
	}
	broken := (*mux.Error)(nil)
	if !errors.As(err, &broken) {
		return false
	}
	m, ok := within[muxed](src)
	return !ok || !errors.Is(err, m.Err())
}

// leave leaves the end to the other direction, for lingerTime at most. It reports false
// where that is over already.
func (j *joint) leave(dst, src Conn, err error) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over || j.failed != nil {
		return false
	}
	j.failed, j.failure = dst, err
	j.late = time.AfterFunc(lingerTime, func() { _ = j.abort(src, dst, err) }) // finish returns it
	close(j.told)
	return true
}

// tellTime is how long a write to a socket that is gone may take to tell of it.
const tellTime = time.Second

// failureOf returns what failed at src, whose end would look orderly without it: a
// socket tells an error once, and a write that got it may be about to say so.
func (j *joint) failureOf(src Conn) error {
	if !j.isOver() && isGone(src) {
		late := time.NewTimer(tellTime)
		defer late.Stop()
		select {
		case <-j.told:
		case <-late.C: // both sides had ended, and in order
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != src {
		return nil
	}
	return j.failure
}

// finish returns a failure that neither direction has told.
func (j *joint) finish() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.late != nil {
		j.late.Stop()
	}
	return j.failure
}

// stop makes src send no more: its peer is told that nobody reads, or what it sends is
// discarded.
func (j *joint) stop(src Conn) {
	if m, ok := within[muxed](src); ok {
		_ = m.CloseRead() // fails where it is closed
		return
	}
	j.discard(src)
}

// discard reads src to its end, or until lingerTime after the other direction is over.
// The peer of a socket cannot be told that nobody reads: it would wait for ever to send,
// and never read what goes the other way.
func (j *joint) discard(src Conn) {
	j.mu.Lock()
	j.discarding = src
	j.setEnd()
	j.mu.Unlock()
	_, _ = io.Copy(io.Discard, src) // whatever ends it, there is nobody to tell
}

// isOver tells whether one direction is.
func (j *joint) isOver() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.over
}

// oneIsOver bounds what the other direction discards.
func (j *joint) oneIsOver() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.over && j.failed == nil {
		close(j.told)
	}
	j.over = true
	if j.discarding != nil {
		j.setEnd()
	}
}

// setEnd sets how long the discarding may take. mu is held.
func (j *joint) setEnd() {
	end := time.Time{}
	if j.over {
		end = time.Now().Add(lingerTime)
	}
	_ = j.discarding.SetReadDeadline(end) // fails where reading fails, too
}

// Fail ends a connection for err so that its peer does not take the end for a clean one,
// as Join does with the other side of one that failed.
func Fail(c net.Conn, hop wire.Hop, err error) { abort(c, hop, err, muxed.Fail) }

// abort ends a connection so that its peer does not take the end for a clean
// one, a session by end.
func abort(c net.Conn, hop wire.Hop, err error, end func(m muxed, code wire.Code, hop wire.Hop, message string)) {
	if m, ok := within[muxed](c); ok {
		end(m, codeOf(err), hop, err.Error())
	}
	if tcp, ok := within[socket](c); ok {
		_ = tcp.SetLinger(0) // fails on a closed connection only
		_ = tcp.Close()      // without the close_notify of TLS, which is an orderly end
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
	case errors.Is(err, context.Canceled):
		return wire.CodeCanceled
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
