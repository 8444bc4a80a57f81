// Package front shares one TCP port between the hub's front ends.
//
// A [Port] reads the ClientHello and picks a TLS configuration by the protocols
// that the client offers and the name that it asks for, finishes the handshake, and
// hands the connection to the listener of its kind. So a client that has no business
// with the tunnel is never asked for a certificate, and an agent whose certificate is
// wrong never gets beyond the handshake. A connection whose TLS is not the hub's to
// end is handed on as it came, ClientHello and all.
//
// What a client can cost before it has said who it is is bounded in time and number:
// one that is silent makes place for others.
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

	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/tlsio"
)

// Config sets up a [Port]. Logger and at least one of the kinds are required.
type Config struct {
	// TunnelProtocol is the ALPN name of agents' tunnels, EnrolProtocol that of agents
	// which have no certificate yet, and ClientProtocol that of clients' tunnels. Who
	// offers one of them gets Tunnel, Enrol or Client, in this order, every other what
	// ByName says; nil refuses them.
	TunnelProtocol, EnrolProtocol, ClientProtocol string
	Tunnel, Enrol, Client                         *tls.Config
	// Web is what clients get without ByName; nil refuses them.
	Web *tls.Config
	// ByName tells what the name means that a client asks for, "" where it asks for
	// none. It is called for every client but agents, from many goroutines.
	ByName func(name string) Named
	// Balancers are the load balancers whose connections begin with a header of the
	// PROXY protocol.
	Balancers Balancers
	// HandshakeTimeout bounds the time from accept to the end of the handshake.
	// Default 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the connections in the handshake. When it is reached, the
	// one that has been silent longest makes place for another. Default 1024.
	MaxHandshakes int
	Logger        *slog.Logger
}

// Named is what a server name leads to.
type Named struct {
	// TLS is how TLS ends here. Nil hands the connection to [Port.Streams] as it is,
	// where Host is set, and else refuses the name with the alert unrecognized_name
	// (RFC 6066 section 3).
	TLS *tls.Config
	// Host is the target of bytes; nil hands the connection to [Port.Web].
	Host *route.Host
}

// Port accepts connections on one listener and sorts them. It is safe for
// concurrent use.
type Port struct {
	cfg     Config
	ln      net.Listener
	tls     *tls.Config
	tunnel  *queue
	enrol   *queue
	clients *queue
	web     *queue
	streams *queue
	crowd   *crowd

	ctx    context.Context
	cancel context.CancelFunc

	// A WaitGroup must not be added to while somebody waits for it to be empty:
	// mu keeps handshakes from starting once Close waits.
	mu       sync.Mutex
	closed   bool
	draining bool
	shakes   sync.WaitGroup
	loop     sync.Mutex // held while connections are accepted
}

// NewPort returns a port on ln, a TCP listener which it takes over. Serve makes it
// work.
func NewPort(ln net.Listener, cfg Config) *Port {
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 10 * time.Second
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = 1024
	}
	if cfg.ByName == nil {
		everybody := Named{TLS: cfg.Web}
		cfg.ByName = func(string) Named { return everybody }
	}
	p := &Port{cfg: cfg, ln: ln, crowd: newCrowd(cfg.MaxHandshakes, min(patience, cfg.HandshakeTimeout))}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, q := range []**queue{&p.tunnel, &p.enrol, &p.clients, &p.web, &p.streams} {
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

// Clients returns the listener of clients' tunnels. Its connections are *tlsio.Conn
// with a complete handshake.
func (p *Port) Clients() net.Listener { return p.clients }

// Web returns the listener of HTTPS clients. Its connections are *tls.Conn with
// a complete handshake.
func (p *Port) Web() net.Listener { return p.web }

// Streams returns the listener of clients for targets of raw bytes. Its connections
// are *Stream.
func (p *Port) Streams() net.Listener { return p.streams }

// Addr returns the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.ln.Addr() }

var (
	// errNoKind refuses a client whose protocol this port does not serve.
	errNoKind = errors.New("no front end on this port for the protocols that the client offers")
	// errPassed ends the hub's TLS on a connection that is not for it.
	errPassed = errors.New("the connection goes to its target as it is")
)

// unknown is for names that nobody here has: crypto/tls says unrecognized_name
// where there is no certificate.
var unknown = &tls.Config{
	MinVersion:     tls.VersionTLS12,
	GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
}

// choose is called with the ClientHello of a connection, by the goroutine that makes
// its handshake.
func (p *Port) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := below(hello.Conn)
	cfg := p.cfg.Tunnel
	switch {
	case offers(hello, p.cfg.TunnelProtocol):
	case offers(hello, p.cfg.EnrolProtocol):
		cfg = p.cfg.Enrol
	case offers(hello, p.cfg.ClientProtocol):
		cfg = p.cfg.Client
	default:
		named := p.cfg.ByName(hello.ServerName)
		c.name, c.named = hello.ServerName, &named
		cfg = named.TLS
		switch {
		case cfg == nil && named.Host != nil:
			c.muted = true
			return nil, errPassed
		case cfg == nil && p.serves():
			c.forget()
			return unknown, nil
		}
	}
	c.forget()
	if cfg == nil {
		return nil, errNoKind
	}
	return cfg, nil
}

// serves tells whether clients other than agents have any business here.
func (p *Port) serves() bool { return p.cfg.Web != nil }

// below returns the connection under TLS.
func below(c net.Conn) *conn {
	for {
		switch next := c.(type) {
		case *conn:
			return next
		case interface{ NetConn() net.Conn }:
			c = next.NetConn()
		default:
			panic("front: a connection that the port has not made")
		}
	}
}

func offers(hello *tls.ClientHelloInfo, protocol string) bool {
	return protocol != "" && slices.Contains(hello.SupportedProtos, protocol)
}

// Serve accepts until Close; then it returns nil.
func (p *Port) Serve() error {
	defer p.shakes.Wait()
	return p.accept()
}

func (p *Port) accept() error {
	p.loop.Lock()
	defer p.loop.Unlock()
	pause := time.Duration(0)
	for {
		raw, err := p.ln.Accept()
		switch {
		case err == nil:
			pause = 0
			p.start(raw)
			continue
		case p.ctx.Err() != nil || p.isDraining():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %v: %w", p.ln.Addr(), err)
		}
		// Out of file descriptors, or a connection that was gone before it was
		// accepted: later ones may succeed.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		p.cfg.Logger.Warn("cannot accept a connection, trying again", "listen", p.ln.Addr().String(), "reason", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-p.ctx.Done():
			return nil
		}
	}
}

// start begins the handshake of a connection once there is a place for it.
func (p *Port) start(raw net.Conn) {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		p.cfg.Logger.Error("a connection that is not of TCP is refused", "listen", p.ln.Addr().String())
		p.drop(raw)
		return
	}
	c := &conn{TCPConn: tcp, keeping: true}
	w := p.crowd.enter(p.ctx.Done(), func(why error) {
		c.cut.Store(&why)
		p.drop(c)
	})
	if w == nil {
		p.drop(c)
		return
	}
	c.hear = w.hear
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.drop(c)
		w.leave()
		return
	}
	p.shakes.Go(func() {
		defer w.leave()
		p.handshake(c)
	})
}

// handshake finishes TLS on one connection and hands it on.
func (p *Port) handshake(c *conn) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.HandshakeTimeout)
	defer cancel()
	if p.cfg.Balancers.listed(c.TCPConn.RemoteAddr()) {
		if err := p.header(ctx, c); err != nil {
			p.report(c, err)
			p.drop(c)
			return
		}
	}
	secure := tlsio.Server(c, p.tls)
	err := secure.HandshakeContext(ctx)
	c.hear = nil
	if errors.Is(err, errPassed) {
		p.pass(c)
		return
	}
	if err != nil {
		p.report(c, err)
		p.drop(c)
		return
	}
	q, out := p.web, net.Conn(secure.Conn)
	switch protocol := secure.ConnectionState().NegotiatedProtocol; {
	case c.named != nil && c.named.Host != nil:
		q, out = p.streams, &Stream{Conn: secure.Conn, Name: c.name, Host: *c.named.Host}
	case protocol == "": // whatever is not configured is no kind
	case protocol == p.cfg.TunnelProtocol:
		secure.Bulk()
		q, out = p.tunnel, secure
	case protocol == p.cfg.ClientProtocol:
		secure.Bulk()
		q, out = p.clients, secure
	case protocol == p.cfg.EnrolProtocol:
		q = p.enrol
	}
	if !q.put(out) {
		p.drop(out)
	}
}

// header reads what a load balancer says, for as long as the handshake may take.
func (p *Port) header(ctx context.Context, c *conn) error {
	stop := context.AfterFunc(ctx, func() { p.drop(c) })
	err := readHeader(c)
	if !stop() {
		return ctx.Err()
	}
	return err
}

// pass hands on a connection as it came.
func (p *Port) pass(c *conn) {
	out := &Stream{Conn: c, Name: c.name, Host: *c.named.Host, First: c.hello}
	c.forget()
	c.muted = false
	if !p.streams.put(out) {
		p.drop(out)
	}
}

// report says once and clearly why a handshake failed. Probes that say nothing,
// as load balancers send them, are not worth a line.
func (p *Port) report(c *conn, err error) {
	if why := c.cut.Load(); why != nil {
		err = *why
	}
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return
	}
	attrs := []any{"remote", c.RemoteAddr().String(), "reason", err}
	if c.name != "" {
		attrs = append(attrs, "name", c.name)
	}
	p.cfg.Logger.Warn("tls handshake refused", attrs...)
}

func (p *Port) drop(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		p.cfg.Logger.Debug("close", "remote", c.RemoteAddr().String(), "reason", err)
	}
}

func (p *Port) isDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// Drain stops accepting, lets the handshakes under way finish until ctx ends, and
// closes the port: a client whose connection was accepted a moment ago is not lost.
// Connections that nobody has accepted stay in the backlog of the socket where another
// process holds it.
func (p *Port) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	err := p.ln.Close()
	finished := make(chan struct{})
	go p.awaitShakes(finished)
	select {
	case <-finished:
	case <-ctx.Done():
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, p.Close())
	<-finished
	return err
}

// awaitShakes ends once no handshake is under way; Close makes them end. None begins
// after the loop, which has nothing to accept any more.
func (p *Port) awaitShakes(finished chan<- struct{}) {
	p.loop.Lock()
	defer p.loop.Unlock()
	p.shakes.Wait()
	close(finished)
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
