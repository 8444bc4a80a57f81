package https

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/culvertdev/culvert/internal/relay"
)

// connections knows what became of a server's connections: net/http answers what it
// cannot read by itself and tells nobody. It is safe for concurrent use.
type connections struct {
	log *slog.Logger

	mu   sync.Mutex
	open map[net.Conn]*connection
}

// connection counts on one connection.
type connection struct {
	mu            sync.Mutex
	begun, served int
}

type connectionKey struct{}

func newConnections(log *slog.Logger) *connections {
	return &connections{log: log, open: make(map[net.Conn]*connection)}
}

// context is for [http.Server.ConnContext].
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	of := &connection{}
	c.mu.Lock()
	c.open[conn] = of
	c.mu.Unlock()
	return context.WithValue(relay.ConnContext(ctx, conn), connectionKey{}, of)
}

// state is for [http.Server.ConnState].
func (c *connections) state(conn net.Conn, state http.ConnState) {
	if state == http.StateNew || state == http.StateIdle {
		return
	}
	c.mu.Lock()
	of := c.open[conn]
	if state != http.StateActive {
		delete(c.open, conn)
	}
	c.mu.Unlock()
	if of == nil {
		return
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	switch {
	case state == http.StateActive:
		of.begun++
	case state == http.StateClosed && (of.served == 0 && of.begun > 0 || of.begun > of.served && isHTTP1(conn)):
		// One that says nothing at all, as probes do, is not worth a line.
		c.log.Info("connection ended with bytes that are no request", "remote", conn.RemoteAddr().String(), "requests", of.served)
	}
}

// isHTTP1 tells a connection whose every request begins by itself.
func isHTTP1(conn net.Conn) bool {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	return !ok || secure.ConnectionState().NegotiatedProtocol != "h2"
}

// served counts a request that was read.
func served(r *http.Request) {
	if of, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		of.mu.Lock()
		of.served++
		of.mu.Unlock()
	}
}
