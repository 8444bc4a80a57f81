package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// DefaultMaxConnections is Config.MaxConnections when that is zero.
const DefaultMaxConnections = 1024

// ErrTooMany is why a connection is refused when as many are open as may be.
var ErrTooMany = errors.New("as many connections are open as may be")

// Dial connects to an address in a cluster, as (*client.Client).DialEarly does.
type Dial func(ctx context.Context, cluster, network, address string) (net.Conn, error)

// Open connects a connection that was accepted. It may read from conn and write to it,
// and closes it in no case. It ends soon when ctx does. Where it fails, to may tell how
// far it got.
type Open func(ctx context.Context, conn net.Conn) (to Destination, remote net.Conn, err error)

// Fixed returns the Open that takes every connection to one destination. When it fails
// the peer gets a reset, since an end would look like an answer of the target.
func Fixed(dial Dial, to Destination) Open {
	return func(ctx context.Context, conn net.Conn) (Destination, net.Conn, error) {
		remote, err := dial(ctx, to.Cluster, "tcp", to.Address)
		if err != nil {
			resetOnClose(conn)
		}
		return to, remote, err
	}
}

// Listener is a listener and what becomes of its connections.
type Listener struct {
	net.Listener

	// To is where all its connections go; zero where each says so itself.
	To   Destination
	Open Open
}

// Kind says what an [Event] is about.
type Kind string

// The kinds of events. Each connection has an Opened and a Closed, or a Refused.
const (
	Opened  Kind = "opened"
	Closed  Kind = "closed"
	Refused Kind = "refused"
	// Broken is a listener that cannot accept now and tries again.
	Broken Kind = "broken"
)

// Event is what happened to a connection.
type Event struct {
	Kind Kind
	// ID numbers the connections of a Server, from 1.
	ID uint64
	// Listen is the listener's address, and From that of the peer, as far as it has one.
	Listen, From string
	To           Destination
	// Sent and Received count bytes to and from the target, and Took is how long the
	// connection lasted: of Closed.
	Sent, Received int64
	Took           time.Duration
	// Err is what ended it before its end, or why it was refused.
	Err error
}

// Config of a [Server].
type Config struct {
	// MaxConnections bounds the connections at a time. Default 1024.
	MaxConnections int
	// Observe is told of every event, from many goroutines; a connection's events come
	// in order. Nil is told nothing.
	Observe func(Event)
}

// Server accepts connections and carries them. Serve is called once.
type Server struct {
	cfg    Config
	places chan struct{}
	last   atomic.Uint64
}

// NewServer returns a server.
func NewServer(cfg Config) *Server {
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	return &Server{cfg: cfg, places: make(chan struct{}, cfg.MaxConnections)}
}

// Serve accepts on the listeners, which it closes, until ctx ends, and then returns nil.
// Connections end with it: when it returns none is left.
func (s *Server) Serve(ctx context.Context, listeners ...Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(listeners))
	var running sync.WaitGroup
	for _, l := range listeners {
		stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // accept says what there is to say
		running.Go(func() {
			defer stop()
			if err := s.accept(ctx, l, &running); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	running.Wait()
	close(failed)
	return <-failed
}

// accept takes the connections of one listener until ctx ends.
func (s *Server) accept(ctx context.Context, l Listener, running *sync.WaitGroup) error {
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(ctx, l, conn, running)
			continue
		case ctx.Err() != nil:
			return nil //nolint:nilerr // told to end, the error is the consequence
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
		// Out of file descriptors, or a connection that was gone before it was
		// accepted: later ones may succeed.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.cfg.Observe(Event{Kind: Broken, Listen: l.Addr().String(), Err: err})
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// start carries a connection if there is a place for it.
func (s *Server) start(ctx context.Context, l Listener, conn net.Conn, running *sync.WaitGroup) {
	e := Event{ID: s.last.Add(1), Listen: l.Addr().String(), From: conn.RemoteAddr().String(), To: l.To}
	select {
	case s.places <- struct{}{}:
	default:
		resetOnClose(conn)
		_ = conn.Close() // nothing was read or written
		e.Kind, e.Err = Refused, fmt.Errorf("%w: %d, --max-connections allows more", ErrTooMany, s.cfg.MaxConnections)
		s.cfg.Observe(e)
		return
	}
	running.Go(func() {
		defer func() { <-s.places }()
		s.carry(ctx, l.Open, conn, e)
	})
}

// carry connects one connection and copies until both directions are over.
func (s *Server) carry(ctx context.Context, open Open, conn net.Conn, e Event) {
	started := time.Now()
	near, ok := conn.(splice.Conn)
	if !ok {
		_ = conn.Close() // the error below is the one that matters
		e.Kind, e.Err = Refused, fmt.Errorf("a connection of type %T cannot be half-closed", conn)
		s.cfg.Observe(e)
		return
	}
	// A peer that is slow to say what it wants must not outlive ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	to, remote, err := open(ctx, conn)
	stop()
	if to != (Destination{}) {
		e.To = to
	}
	if err != nil {
		_ = conn.Close() // the error of open is the one that matters
		e.Kind, e.Err = Refused, err
		s.cfg.Observe(e)
		return
	}
	far, ok := remote.(splice.Conn)
	if !ok {
		_, _ = conn.Close(), remote.Close() // as above
		e.Kind, e.Err = Refused, fmt.Errorf("a connection of type %T cannot be half-closed", remote)
		s.cfg.Observe(e)
		return
	}
	e.Kind = Opened
	s.cfg.Observe(e)
	defer context.AfterFunc(ctx, func() {
		// Neither side may take it for an orderly end.
		splice.Fail(far, wire.HopClient, context.Cause(ctx))
		splice.Fail(near, wire.HopClient, context.Cause(ctx))
	})()
	r := splice.Join(near, far, wire.HopClient)
	e.Kind, e.Sent, e.Received, e.Took = Closed, r.AToB, r.BToA, time.Since(started)
	e.Err = cmp.Or(context.Cause(ctx), r.Err)
	s.cfg.Observe(e)
}

// resetOnClose makes the peer of a TCP connection see that it was cut.
func resetOnClose(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails on a closed connection only
	}
}
