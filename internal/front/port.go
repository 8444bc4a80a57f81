// Package front shares one TCP port between the hub's front ends.
//
// A [Port] reads the ClientHello and picks a TLS configuration by the protocols
// that the client offers, finishes the handshake, and hands the connection to
// the listener of its kind. So a client that has no business with the tunnel is
// never asked for a certificate, and an agent whose certificate is wrong never
// gets beyond the handshake.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/tlsio"
)

// Config sets up a [Port]. Logger and at least one of the kinds are required.
type Config struct {
	// TunnelProtocol is the ALPN name of the tunnel, EnrolProtocol that of agents
	// which have no certificate yet. A client that offers one of them gets Tunnel or
	// Enrol, in this order, every other Web; nil refuses them.
	TunnelProtocol, EnrolProtocol string
	Tunnel, Enrol, Web            *tls.Config
	// HandshakeTimeout bounds the time from accept to the end of the handshake.
	// Default 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the connections in the handshake; further ones wait
	// to be accepted. Default 1024.
	MaxHandshakes int
	Logger        *slog.Logger
}

// Port accepts connections on one listener and sorts them. It is safe for
// concurrent use.
type Port struct {
	cfg    Config
	ln     net.Listener
	tls    *tls.Config
	tunnel *queue
	enrol  *queue
	web    *queue
	slots  chan struct{}

	ctx    context.Context
	cancel context.CancelFunc

	// A WaitGroup must not be added to while somebody waits for it to be empty:
	// mu keeps handshakes from starting once Close waits.
	mu     sync.Mutex
	closed bool
	shakes sync.WaitGroup
}

// NewPort returns a port on ln, which it takes over. Serve makes it work.
func NewPort(ln net.Listener, cfg Config) *Port {
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 10 * time.Second
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 1024
	}
	p := &Port{cfg: cfg, ln: ln, slots: make(chan struct{}, cfg.MaxHandshakes)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, q := range []**queue{&p.tunnel, &p.enrol, &p.web} {
		*q = newQueue(ln.Addr(), p.ctx.Done())
	}
	p.tls = &tls.Config{GetConfigForClient: p.choose, MinVersion: tls.VersionTLS12}
	return p
}

// Tunnel returns the listener of agents. Its connections are *tlsio.Conn with a
// complete handshake.
func (p *Port) Tunnel() net.Listener { return p.tunnel }

// Enrol returns the listener of agents that have no certificate yet. Its
// connections are *tls.Conn with a complete handshake. Where Config.Enrol is set
// somebody has to accept them, as those of every kind: one that waits to be
// accepted holds one of Config.MaxHandshakes.
func (p *Port) Enrol() net.Listener { return p.enrol }

// Web returns the listener of HTTPS clients. Its connections are *tls.Conn with
// a complete handshake.
func (p *Port) Web() net.Listener { return p.web }

// Addr returns the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.ln.Addr() }

// errNoKind refuses a client whose protocol this port does not serve.
var errNoKind = errors.New("no front end on this port for the protocols that the client offers")

func (p *Port) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cfg := p.cfg.Web
	switch {
	case offers(hello, p.cfg.TunnelProtocol):
		cfg = p.cfg.Tunnel
	case offers(hello, p.cfg.EnrolProtocol):
		cfg = p.cfg.Enrol
	}
	if cfg == nil {
		return nil, errNoKind
	}
	return cfg, nil
}

func offers(hello *tls.ClientHelloInfo, protocol string) bool {
	return protocol != "" && slices.Contains(hello.SupportedProtos, protocol)
}

// Serve accepts until Close; then it returns nil.
func (p *Port) Serve() error {
	defer p.shakes.Wait()
	pause := time.Duration(0)
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return nil
		}
		conn, err := p.ln.Accept()
		switch {
		case err == nil:
			pause = 0
			p.start(conn)
			continue
		case p.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %v: %w", p.ln.Addr(), err)
		}
		// Out of file descriptors, or a connection that was gone before it was
		// accepted: later ones may succeed.
		<-p.slots
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		p.cfg.Logger.Warn("cannot accept a connection, trying again", "listen", p.ln.Addr().String(), "reason", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-p.ctx.Done():
			return nil
		}
	}
}

// start begins the handshake of a connection that holds a slot.
func (p *Port) start(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.drop(conn)
		<-p.slots
		return
	}
	p.shakes.Go(func() {
		defer func() { <-p.slots }()
		p.handshake(conn)
	})
}

// handshake finishes TLS on one connection and hands it on.
func (p *Port) handshake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.HandshakeTimeout)
	defer cancel()
	conn := tlsio.Server(raw, p.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		p.report(raw, err)
		p.drop(raw)
		return
	}
	q, out := p.web, net.Conn(conn.Conn)
	switch conn.ConnectionState().NegotiatedProtocol {
	case "": // whatever is not configured is no kind
	case p.cfg.TunnelProtocol:
		conn.Bulk()
		q, out = p.tunnel, conn
	case p.cfg.EnrolProtocol:
		q = p.enrol
	}
	if !q.put(out) {
		p.drop(out)
	}
}

// report says once and clearly why a handshake failed. Probes that say nothing,
// as load balancers send them, are not worth a line.
func (p *Port) report(raw net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return
	}
	p.cfg.Logger.Warn("tls handshake refused", "remote", raw.RemoteAddr().String(), "reason", err)
}

func (p *Port) drop(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		p.cfg.Logger.Debug("close", "remote", c.RemoteAddr().String(), "reason", err)
	}
}

// Close stops accepting and ends the handshakes under way. Connections that were
// handed on stay open.
func (p *Port) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	err := p.ln.Close()
	p.shakes.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// queue is a net.Listener whose connections are put into it.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	port  <-chan struct{} // closed when the port closes
	once  sync.Once
	over  chan struct{} // closed when the listener closes
}

func newQueue(addr net.Addr, port <-chan struct{}) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), port: port, over: make(chan struct{})}
}

func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.over:
	case <-q.port:
	}
	return false
}

// Accept implements [net.Listener].
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.over:
	case <-q.port:
	}
	return nil, net.ErrClosed
}

// Close implements [net.Listener].
func (q *queue) Close() error {
	q.once.Do(func() { close(q.over) })
	return nil
}

// Addr implements [net.Listener].
func (q *queue) Addr() net.Addr { return q.addr }
