package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// connections knows what became of the connections of servers: net/http answers what
// it cannot read by itself and tells nobody. It is safe for concurrent use.
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

// watch makes a server tell of its connections. It comes last: what it puts before
// the handler has to see every request.
func (c *connections) watch(server *http.Server) {
	next, handler := server.ConnContext, server.Handler
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, conn)
		}
		of := &connection{}
		c.mu.Lock()
		c.open[conn] = of
		c.mu.Unlock()
		return context.WithValue(ctx, connectionKey{}, of)
	}
	server.ConnState = c.state
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if of, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			of.mu.Lock()
			of.served++
			of.mu.Unlock()
		}
		handler.ServeHTTP(w, r)
	})
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
	if carriedTLS(conn) != nil {
		return false
	}
	secure, ok := conn.(*tls.Conn)
	return !ok || secure.ConnectionState().NegotiatedProtocol != "h2"
}
