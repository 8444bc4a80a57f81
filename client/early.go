package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
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
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	starting sync.Mutex    // one start at a time
	started  chan struct{} // closed when session or err is set

	mu            sync.Mutex // guards what follows, until started is closed
	session       *mux.Session
	link          *mux.Link
	err           error
	read, written time.Time // deadlines asked for before
}

var _ interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
} = (*early)(nil)

func newEarly(c *Client, to Addr, req mux.Request, local net.Addr) *early {
	e := &early{client: c, to: to, req: req, local: local, started: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// start opens the session with the first bytes of p, and returns how many of them went
// along. Once it is open it returns 0.
func (e *early) start(p []byte, deadline func() time.Time) (int, error) {
	e.starting.Lock()
	defer e.starting.Unlock()
	select {
	case <-e.started:
		return 0, e.err
	default:
	}
	ctx, cancel := bounded(e.ctx)
	defer cancel()
	if until := deadline(); !until.IsZero() {
		ctx, cancel = context.WithDeadlineCause(ctx, until, os.ErrDeadlineExceeded)
		defer cancel()
	}
	req := e.req
	req.Payload = p[:min(len(p), mux.MaxFirst)]
	session, link, err := e.open(ctx, req)
	if err != nil && errors.Is(context.Cause(ctx), os.ErrDeadlineExceeded) {
		return 0, os.ErrDeadlineExceeded // which a later deadline may mend
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil { // closed meanwhile
		if session != nil {
			session.Reset(wire.CodeCanceled, wire.HopClient, "closed before it was opened")
		}
		return 0, e.err
	}
	if err == nil {
		err = errors.Join(session.SetReadDeadline(e.read), session.SetWriteDeadline(e.written))
	}
	e.session, e.link, e.err = session, link, err
	close(e.started)
	if err != nil {
		return 0, err
	}
	return len(req.Payload), nil
}

// open sends the open on a link that takes it.
func (e *early) open(ctx context.Context, req mux.Request) (*mux.Session, *mux.Link, error) {
	for attempt := 0; ; attempt++ {
		link, err := e.client.way.link(ctx)
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
func (e *early) ready(deadline func() time.Time) (*mux.Session, error) {
	if _, err := e.start(nil, deadline); err != nil {
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
	sent, err := e.start(p, e.writeDeadline)
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
	select {
	case <-e.started:
	default:
		wait := time.NewTimer(writerFirst)
		select {
		case <-e.started:
		case <-wait.C:
		}
		wait.Stop()
	}
	s, err := e.ready(e.readDeadline)
	if err != nil {
		return 0, err
	}
	n, err := s.Read(p)
	return n, e.explain("read", err)
}

// ReadFrom implements [io.ReaderFrom]: it copies r to the connection. The first piece
// travels with the open.
func (e *early) ReadFrom(r io.Reader) (int64, error) {
	select {
	case <-e.started:
	default:
		first := make([]byte, mux.MaxFirst)
		n, err := r.Read(first)
		sent, werr := e.Write(first[:n])
		switch {
		case werr != nil:
			return int64(sent), werr
		case errors.Is(err, io.EOF):
			return int64(sent), nil
		case err != nil:
			return int64(sent), err
		}
		more, err := e.ReadFrom(r)
		return int64(sent) + more, err
	}
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.session.ReadFrom(r)
	return n, e.explain("write", err)
}

// WriteTo implements [io.WriterTo]: it copies the connection to w.
func (e *early) WriteTo(w io.Writer) (int64, error) {
	if _, err := e.Read(nil); err != nil { // leaves the open to a writer, too
		return 0, err
	}
	n, err := e.session.WriteTo(w)
	return n, e.explain("read", err)
}

// Close implements [net.Conn].
func (e *early) Close() error {
	e.cancel()
	e.mu.Lock()
	if e.session == nil && e.err == nil {
		e.err = net.ErrClosed
		close(e.started)
		e.mu.Unlock()
		return nil
	}
	session, err := e.session, e.err
	e.mu.Unlock()
	if session == nil {
		if errors.Is(err, net.ErrClosed) {
			return net.ErrClosed
		}
		return nil // it was never open
	}
	return session.Close()
}

// Reset ends the connection so that the target does not take it for an orderly end.
func (e *early) Reset(code wire.Code, hop wire.Hop, message string) {
	e.mu.Lock()
	session := e.session
	e.mu.Unlock()
	if session != nil {
		session.Reset(code, hop, message)
	}
}

// CloseWrite ends the sending direction.
func (e *early) CloseWrite() error {
	s, err := e.ready(e.writeDeadline)
	if err != nil {
		return err
	}
	return s.CloseWrite()
}

// CloseRead ends the receiving direction.
func (e *early) CloseRead() error {
	s, err := e.ready(e.writeDeadline)
	if err != nil {
		return err
	}
	return s.CloseRead()
}

func (e *early) readDeadline() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.read
}

func (e *early) writeDeadline() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.written
}

// SetDeadline implements [net.Conn].
func (e *early) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn]. One that is set while a call opens the session
// is for later calls.
func (e *early) SetReadDeadline(t time.Time) error {
	s, err := e.orRemember(&e.read, t)
	if s == nil {
		return err
	}
	return s.SetReadDeadline(t)
}

// SetWriteDeadline implements [net.Conn], as SetReadDeadline does.
func (e *early) SetWriteDeadline(t time.Time) error {
	s, err := e.orRemember(&e.written, t)
	if s == nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// orRemember returns the session, or keeps t for when there is one.
func (e *early) orRemember(deadline *time.Time, t time.Time) (*mux.Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == nil {
		*deadline = t
		return nil, e.err
	}
	return e.session, nil
}

// LocalAddr implements [net.Conn].
func (e *early) LocalAddr() net.Addr { return e.local }

// RemoteAddr returns the [Addr] of the target.
func (e *early) RemoteAddr() net.Addr { return e.to }
