package clients

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// Identify says who sent a request: [identity.Chain.Identify].
type Identify func(r *http.Request, cluster string) (identity.Caller, error)

// Conn is a session that carries HTTP to the hub itself.
type Conn struct {
	*mux.Session

	state *tls.ConnectionState
}

// TLS returns the state of the connection that carries the session. It is shared and
// not changed. (There is no method ConnectionState: a server of HTTP would take the
// session for one with TLS inside.)
func (c *Conn) TLS() *tls.ConnectionState { return c.state }

// carry hands a session to whoever serves HTTP.
func (f *Front) carry(c *acceptor.Client, in *mux.Incoming) {
	session, err := in.Accept()
	if err != nil {
		return // the client gave up
	}
	state := c.TLS
	conn := &Conn{Session: session, state: &state}
	if !f.web.put(conn) {
		session.Reset(wire.CodeDraining, wire.HopHub, "the hub is stopping")
	}
}

// carried is a listener of sessions.
type carried struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newCarried() *carried {
	return &carried{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put hands a connection to Accept; false once the listener is closed.
func (l *carried) put(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements [net.Listener].
func (l *carried) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *carried) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *carried) Addr() net.Addr { return mux.Addr{} }
