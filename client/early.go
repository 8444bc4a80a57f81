package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// writerFirst is how long a Read on a connection that is not open leaves the open to a
// Write: the reader and the writer of an HTTP transport begin together.
const writerFirst = time.Millisecond

// early is a connection whose session is opened by the first Write, which travels with
// the open, or by the first Read.
type early struct {
	client *Client
	to     Addr
	req    mux.Request
	local  net.Addr
	life   context.Context // ends with Close
	cancel context.CancelFunc

	turn          chan struct{} // one start at a time: holds one
	started       chan struct{} // closed when session or err is set
	read, written deadline      // of what waits before there is a session
	closed        atomic.Bool

	mu      sync.Mutex // guards what follows, until started is closed
	session *mux.Session
	link    *mux.Link
	err     error
}

var _ interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
} = (*early)(nil)

func newEarly(c *Client, to Addr, req mux.Request, local net.Addr) *early {
	e := &early{client: c, to: to, req: req, local: local, turn: make(chan struct{}, 1), started: make(chan struct{})}
	e.life, e.cancel = context.WithCancel(context.Background())
	return e
}

// start opens the session with the first bytes of p, and returns how many of them went
// along. Once it is open it returns 0. It waits until a deadline at most, which has no part
// in how long the target may take.
func (e *early) start(p []byte, until *deadline) (int, error) {
	if isClosed(e.started) {
		return 0, e.failure()
	}
	over := until.wait()
	if isClosed(over) {
		return 0, os.ErrDeadlineExceeded
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-e.started:
		return 0, e.failure()
	case <-over:
		return 0, os.ErrDeadlineExceeded
	}
	if isClosed(e.started) {
		return 0, e.failure()
	}
	ctx, cancel := context.WithTimeout(e.life, openTime)
	defer cancel()
	waiting, stop := until.bound(ctx)
	defer stop()
	req := e.req
	req.Payload = p[:min(len(p), mux.MaxFirst)]
	session, link, err := e.open(ctx, waiting, req)
	if err != nil && errors.Is(context.Cause(waiting), os.ErrDeadlineExceeded) {
		return 0, os.ErrDeadlineExceeded // which a later deadline may mend
	}
	return len(req.Payload), e.begin(session, link, err)
}

// begin is told what became of the open.
func (e *early) begin(session *mux.Session, link *mux.Link, err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil { // closed meanwhile
		if session != nil {
			session.Reset(wire.CodeCanceled, wire.HopClient, "closed before it was opened")
		}
		return e.err
	}
	read, written := e.read.end(), e.written.end()
	if err == nil {
		err = errors.Join(session.SetReadDeadline(read), session.SetWriteDeadline(written))
	}
	e.session, e.link, e.err = session, link, lasting(err)
	close(e.started)
	return e.err
}

// failure is why a connection that was started is of no use, nil where it is.
func (e *early) failure() error {
	if e.err != nil && e.closed.Load() {
		return net.ErrClosed
	}
	return e.err
}

// open sends the open on a link that takes it. waiting bounds the wait for a link, and ctx
// everything.
func (e *early) open(ctx, waiting context.Context, req mux.Request) (*mux.Session, *mux.Link, error) {
	for attempt := 0; ; attempt++ {
		link, err := e.client.way.link(waiting)
		if err != nil {
			return nil, nil, e.client.about(e.to, err)
		}
		s, err := link.Start(ctx, req)
		if err == nil {
			return s, link, nil
		}
		again, failure := e.client.opened(link, e.to, req, err)
		if !again || attempt == maxAttempts {
			return nil, nil, failure
		}
	}
}

// ready returns the session, opened where it has to be.
func (e *early) ready(until *deadline) (*mux.Session, error) {
	if _, err := e.start(nil, until); err != nil {
		return nil, err
	}
	return e.session, nil
}

// explain makes an [*Error] of what a hop says.
func (e *early) explain(op string, err error) error {
	if refused, ok := errors.AsType[*mux.Error](err); ok && refused.Code == wire.CodeUnauthenticated && refused.Hop == wire.HopHub {
		e.client.way.refused(e.link) // so that the next one has another token
	}
	return e.to.explain(op, err)
}

// Write implements [net.Conn].
func (e *early) Write(p []byte) (int, error) {
	sent, err := e.start(p, &e.written)
	if err != nil {
		return 0, err
	}
	if sent > 0 && sent == len(p) {
		return sent, nil
	}
	n, err := e.session.Write(p[sent:])
	return sent + n, e.explain("write", err)
}

// Read implements [net.Conn].
func (e *early) Read(p []byte) (int, error) {
	if !isClosed(e.started) {
		wait := time.NewTimer(writerFirst)
		select {
		case <-e.started:
		case <-wait.C:
		}
		wait.Stop()
	}
	s, err := e.ready(&e.read)
	if err != nil {
		return 0, err
	}
	n, err := s.Read(p)
	return n, e.explain("read", err)
}

// ReadFrom implements [io.ReaderFrom]: it copies r to the connection. The first piece
// travels with the open.
func (e *early) ReadFrom(r io.Reader) (int64, error) {
	var sent int64
	if !isClosed(e.started) {
		var over bool
		var err error
		if sent, over, err = e.first(r.Read); over || err != nil {
			return sent, err
		}
	}
	if err := e.failure(); err != nil {
		return sent, err
	}
	n, err := e.session.ReadFrom(r)
	return sent + n, e.explain("write", err)
}

// ReadFromConn is ReadFrom that ends with [syscall.EPIPE] once the target reads no more,
// also while it waits for r, whose read deadline it uses.
func (e *early) ReadFromConn(r net.Conn) (int64, error) {
	var sent int64
	if !isClosed(e.started) {
		var over bool
		var err error
		if sent, over, err = e.first(func(p []byte) (int, error) { return e.readUntilStarted(r, p) }); over || err != nil {
			return sent, err
		}
	}
	if err := e.failure(); err != nil {
		return sent, err
	}
	n, err := e.session.ReadFromConn(r)
	return sent + n, e.explain("write", err)
}

// first sends the first piece, with the open where nobody has opened yet. over tells that
// there is no more.
func (e *early) first(read func([]byte) (int, error)) (sent int64, over bool, err error) {
	p := make([]byte, mux.MaxFirst)
	n, rerr := read(p)
	written, err := e.Write(p[:n])
	if err == nil && !errors.Is(rerr, io.EOF) {
		err = rerr
	}
	return int64(written), rerr != nil, err
}

// readUntilStarted reads from r, and ends without a byte when the session is there before
// one: its own ReadFromConn is for what comes then.
func (e *early) readUntilStarted(r net.Conn, p []byte) (int, error) {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-e.started:
			_ = r.SetReadDeadline(time.Unix(1, 0)) // fails where its Read fails, too
		case <-done:
		}
	})
	n, err := r.Read(p)
	close(done)
	watching.Wait()
	if isClosed(e.started) {
		reset := r.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = reset
		}
	}
	return n, err
}

// WriteTo implements [io.WriterTo]: it copies the connection to w.
func (e *early) WriteTo(w io.Writer) (int64, error) {
	if _, err := e.Read(nil); err != nil { // leaves the open to a writer, too
		return 0, err
	}
	n, err := e.session.WriteTo(w)
	return n, e.explain("read", err)
}

// Close implements [net.Conn]. What was written is delivered, also where the target is
// not connected yet.
func (e *early) Close() error {
	if e.closed.Swap(true) {
		return net.ErrClosed
	}
	e.cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session != nil {
		return e.session.Finish()
	}
	if e.err == nil {
		e.err = net.ErrClosed
		e.read.end()
		e.written.end()
		close(e.started)
	}
	return nil
}

// Err returns why the connection failed, nil where it did not.
func (e *early) Err() error {
	if !isClosed(e.started) {
		return nil
	}
	if e.err != nil {
		return e.err
	}
	return e.session.Err()
}

// Fail ends the connection behind what was written, so that the target does not take it
// for an orderly end.
func (e *early) Fail(code wire.Code, hop wire.Hop, message string) {
	if s := e.opened(); s != nil {
		s.Fail(code, hop, message)
	}
}

// Reset ends the connection so that the target does not take it for an orderly end.
func (e *early) Reset(code wire.Code, hop wire.Hop, message string) {
	if s := e.opened(); s != nil {
		s.Reset(code, hop, message)
	}
}

// opened returns the session, nil where there is none yet.
func (e *early) opened() *mux.Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.session
}

// CloseWrite ends the sending direction.
func (e *early) CloseWrite() error {
	s, err := e.ready(&e.written)
	if err != nil {
		return err
	}
	return s.CloseWrite()
}

// CloseRead ends the receiving direction.
func (e *early) CloseRead() error {
	s, err := e.ready(&e.read)
	if err != nil {
		return err
	}
	return s.CloseRead()
}

// SetDeadline implements [net.Conn].
func (e *early) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (e *early) SetReadDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session != nil {
		return e.session.SetReadDeadline(t)
	}
	if e.err == nil {
		e.read.set(t)
	}
	return e.failure()
}

// SetWriteDeadline implements [net.Conn].
func (e *early) SetWriteDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session != nil {
		return e.session.SetWriteDeadline(t)
	}
	if e.err == nil {
		e.written.set(t)
	}
	return e.failure()
}

// LocalAddr implements [net.Conn].
func (e *early) LocalAddr() net.Addr { return e.local }

// RemoteAddr returns the [Addr] of the target.
func (e *early) RemoteAddr() net.Addr { return e.to }
