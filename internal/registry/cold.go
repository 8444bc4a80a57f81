package registry

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
)

// Ahead is how much goes out before the agent has answered, in bytes: what every peer
// of the protocol takes (docs/protocol.md, section 7).
const Ahead = mux.DefaultMinWindow

// Cold returns a connection to a target in a cluster whose session is opened by the
// first Write, so that the request travels with the open and its answer is there
// after one round trip. It is for protocols whose client speaks first. An agent
// that refuses has not acted on those bytes, so another one may get them.
//
// Cold itself fails, with a [*fault.Error], for a cluster without an agent, after
// the bounded wait; the first Write fails with one when the session is not opened
// within timeout. Where Cold gives a connection, decided is called once, with how the
// opening went; it must not block. The context bounds the wait for an agent and gives the values.
// The connection is a complete net.Conn with CloseWrite and CloseRead, and with
// Agent() string, the name of the agent that has the session or was the last to be
// asked for it, empty as long as none was; the caller owns it.
func (r *Registry) Cold(ctx context.Context, name string, req mux.Request, timeout time.Duration, decided func(error)) (net.Conn, error) {
	if _, err := r.pick(ctx, name, wanted{target: req.Target, prefer: preferred(ctx), look: true}); err != nil {
		return nil, err
	}
	open, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &cold{
		registry: r, cluster: name, request: req, timeout: timeout,
		decided: decided, ctx: open, cancel: cancel, opened: make(chan struct{}),
	}, nil
}

// cold is a connection whose session may not be open yet.
type cold struct {
	registry *Registry
	cluster  string
	request  mux.Request
	timeout  time.Duration
	decided  func(error)
	ctx      context.Context // ends when it is closed
	cancel   context.CancelFunc

	writing sync.Mutex // one Write at a time until it is open
	at      *agent     // whose session it is; guarded by writing until opened is closed
	left    sync.Once  // its session counts no more

	opened chan struct{} // closed when session or err is set

	mu            sync.Mutex // guards what follows until opened is closed
	session       *mux.Session
	agent         string
	err           error
	read, written time.Time // deadlines asked for before
}

// Write implements [net.Conn].
func (c *cold) Write(p []byte) (int, error) {
	select {
	case <-c.opened:
	default:
		if n, err := c.open(p); n == len(p) || err != nil {
			return n, err
		} else if n > 0 {
			rest, err := c.Write(p[n:])
			return n + rest, err
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.session.Write(p)
}

// open opens the session with the first bytes of p and returns how many of them
// went along: none where it was open already.
func (c *cold) open(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	select {
	case <-c.opened:
		return 0, c.err
	default:
	}
	first := p[:min(len(p), Ahead)]
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	s, agent, err := c.registry.openWith(ctx, c.cluster, c.request, first, func(a *agent) { c.at = a })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agent = agent
	if c.err != nil { // closed meanwhile
		if s != nil {
			_ = s.Close() // nobody has it
			c.leave()
		}
		return 0, c.err
	}
	if err == nil {
		// Deadlines of the past are taken over as well: they fail what comes now.
		err = errors.Join(s.SetReadDeadline(c.read), s.SetWriteDeadline(c.written))
	}
	c.session, c.err = s, err
	close(c.opened)
	c.decided(err)
	if err != nil {
		return 0, err
	}
	return len(first), nil
}

// openWith opens a session and sends first, before the agent's answer.
func (r *Registry) openWith(ctx context.Context, name string, req mux.Request, first []byte, opened func(*agent)) (*mux.Session, string, error) {
	req.Payload = first[:min(len(first), mux.MaxFirst)]
	more := first[len(req.Payload):]
	return r.openBy(ctx, name, req, func(a *agent) (*mux.Session, error) {
		a.pooled.Add(1)
		s, err := startWith(ctx, a.link, req, more)
		if err != nil {
			a.pooled.Add(-1)
			return nil, err
		}
		opened(a)
		return s, nil
	})
}

// Agent returns the name of the agent that has the session, see [Registry.Cold].
func (c *cold) Agent() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agent
}

// startWith opens a session on one link.
func startWith(ctx context.Context, l *mux.Link, req mux.Request, more []byte) (*mux.Session, error) {
	s, err := l.Start(ctx, req)
	if err != nil {
		return nil, err
	}
	if len(more) > 0 {
		_, err = s.Write(more) // within the window that every session has
	}
	// A session that was refused fails the Write too; Wait knows why.
	if werr := s.Wait(ctx); werr != nil {
		return nil, werr
	}
	// A target that reads no more may have something to say, as one that refuses a request.
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		_ = s.Close() // nobody else would
		return nil, err
	}
	return s, nil
}

// Read implements [net.Conn]. It waits until the session is open.
func (c *cold) Read(p []byte) (int, error) {
	<-c.opened
	if c.err != nil {
		return 0, c.err
	}
	return c.session.Read(p)
}

// Close implements [net.Conn].
func (c *cold) Close() error {
	c.cancel()
	c.mu.Lock()
	if c.session == nil && c.err == nil {
		c.err = net.ErrClosed
		close(c.opened)
		c.decided(net.ErrClosed)
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	if c.session == nil {
		return nil // it was never open
	}
	c.leave()
	return c.session.Close()
}

// leave ends the session's part in what its agent has.
func (c *cold) leave() { c.left.Do(func() { c.at.pooled.Add(-1) }) }

// CloseWrite ends the sending direction.
func (c *cold) CloseWrite() error {
	if _, err := c.Write(nil); err != nil {
		return err
	}
	return c.session.CloseWrite()
}

// CloseRead ends the receiving direction.
func (c *cold) CloseRead() error {
	if _, err := c.Write(nil); err != nil {
		return err
	}
	return c.session.CloseRead()
}

// SetDeadline implements [net.Conn]. Before the session is open deadlines do not
// end a call; Config's timeout does.
func (c *cold) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *cold) SetReadDeadline(t time.Time) error {
	if s := c.orRemember(&c.read, t); s != nil {
		return s.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (c *cold) SetWriteDeadline(t time.Time) error {
	if s := c.orRemember(&c.written, t); s != nil {
		return s.SetWriteDeadline(t)
	}
	return nil
}

// orRemember returns the session, or keeps t for when there is one.
func (c *cold) orRemember(deadline *time.Time, t time.Time) *mux.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		*deadline = t
	}
	return c.session
}

// LocalAddr implements [net.Conn].
func (c *cold) LocalAddr() net.Addr {
	if s := c.now(); s != nil {
		return s.LocalAddr()
	}
	return mux.Addr{}
}

// RemoteAddr implements [net.Conn].
func (c *cold) RemoteAddr() net.Addr {
	if s := c.now(); s != nil {
		return s.RemoteAddr()
	}
	return mux.Addr{}
}

func (c *cold) now() *mux.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}
