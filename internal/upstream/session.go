package upstream

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// session is a connection from the hub with what it leads to.
type session struct {
	net.Conn
	target wire.Target
}

// NetConn returns the connection that the tunnel gave.
func (s *session) NetConn() net.Conn { return s.Conn }

// CloseWrite ends the direction to the hub.
func (s *session) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

type targetKey struct{}

// sessionContext is the server's ConnContext.
func sessionContext(ctx context.Context, conn net.Conn) context.Context {
	ctx = relay.ConnContext(ctx, conn)
	if s, ok := conn.(*session); ok {
		ctx = context.WithValue(ctx, targetKey{}, s.target)
	}
	return ctx
}

// listener hands sessions to the server. It is safe for concurrent use.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// hand gives conn to the server, or closes it once the listener is closed.
func (l *listener) hand(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		// Nobody will read or write it: there is nobody to tell.
		_ = conn.Close()
	}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "sessions", Net: "tunnel"} }
