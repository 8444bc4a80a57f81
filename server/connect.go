package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/connect"
	"github.com/culvertdev/culvert/internal/front/websocket"
	"github.com/culvertdev/culvert/internal/route"
)

// tcpFronts are the front ends of raw TCP that speak HTTP first: CONNECT and
// WebSocket, on the port of all and on listeners of their own.
type tcpFronts struct {
	connect   *connect.Handler
	websocket *websocket.Handler
	listeners []tcpListener
	seen      *connections
}

// tcpListener is a listener of one of them.
type tcpListener struct {
	name   string
	server *http.Server
	web    net.Listener
	port   *front.Port // nil for clear text
}

// newTCPFronts makes the front ends, without listeners.
func (s *Server) newTCPFronts() (*tcpFronts, error) {
	settings, problems := s.cfg.connectSettings()
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	cfg, ws := cmp.Or(s.cfg.Connect, &Connect{}), cmp.Or(s.cfg.WebSocket, &WebSocket{})
	t := &tcpFronts{seen: newConnections(s.log)}
	var err error
	t.connect, err = connect.New(connect.Config{
		Sessions: sessions{s}, Identify: s.identity.Identify, Routes: settings.routes, Names: s.names.hosts.Proxied, Ports: settings.ports,
		Anonymous: cfg.Anonymous, IdleTimeout: cfg.IdleTimeout.Duration, Observer: s.observer, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	t.websocket, err = websocket.New(websocket.Config{
		Sessions: sessions{s}, Identify: s.identity.Identify, Ports: settings.ports,
		IdleTimeout: ws.IdleTimeout.Duration, Observer: s.observer, Logger: s.log,
	})
	return t, err
}

// share puts the front ends before the handler of a server for [front.Port.Web].
func (t *tcpFronts) share(server *http.Server) {
	server.Handler = &dispatcher{connect: t.connect, websocket: t.websocket, rest: server.Handler, log: t.seen.log}
	server.Protocols.SetUnencryptedHTTP2(true) // inside of TLS: see eitherListener
	next := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, conn)
		}
		if state := carriedTLS(conn); state != nil {
			ctx = context.WithValue(ctx, carrierKey{}, conn)
		}
		return ctx
	}
	t.seen.watch(server)
}

// dispatcher gives a request of the port of all to its front end.
type dispatcher struct {
	connect, websocket, rest http.Handler

	log *slog.Logger
}

// ServeHTTP implements [http.Handler].
func (d *dispatcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		carrier := r.Context().Value(carrierKey{})
		r.TLS = carriedTLS(carrier)
		_, either := carrier.(*eitherConn)
		if either && r.ProtoMajor == 1 && r.Method != http.MethodConnect { // where h2 was agreed on
			d.log.Info("request refused: it is in HTTP/1.1 on a connection for which HTTP/2 was agreed on", "remote", r.RemoteAddr)
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
	}
	switch {
	case r.Method == http.MethodConnect:
		d.connect.ServeHTTP(w, r)
	case route.IsTCP(r):
		d.websocket.ServeHTTP(w, r)
	default:
		d.rest.ServeHTTP(w, r)
	}
}

// eitherListener gives a server connections whose version of HTTP the first bytes
// tell, and not ALPN alone: the HTTP transport of Go, and so kubectl, offers h2 to
// an HTTPS proxy and then speaks HTTP/1.1 to it whatever was chosen (net/http
// Transport.addTLS). The server takes them for connections in clear text, for which
// it looks at the first bytes. The dispatcher gives requests their TLS state back, and of
// HTTP/1.1 lets CONNECT alone pass.
type eitherListener struct{ net.Listener }

// Accept implements [net.Listener].
func (l eitherListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if secure, ok := conn.(*tls.Conn); ok {
		if state := secure.ConnectionState(); state.NegotiatedProtocol == "h2" {
			return &eitherConn{Conn: secure, tls: secure, state: &state}, err
		}
	}
	return conn, err
}

// carrierKey is of a connection that carriedTLS knows.
type carrierKey struct{}

// eitherConn is a TLS connection that does not look like one to net/http: it has no
// method ConnectionState.
type eitherConn struct {
	net.Conn

	tls   *tls.Conn
	state *tls.ConnectionState // shared by all requests, as net/http does
}

// CloseWrite sends close_notify.
func (c *eitherConn) CloseWrite() error { return c.tls.CloseWrite() }

// NetConn returns the connection under TLS.
func (c *eitherConn) NetConn() net.Conn { return c.tls.NetConn() }

// listen opens the listeners of the front ends' own.
func (t *tcpFronts) listen(ctx context.Context, s *Server) error {
	settings, problems := s.cfg.connectSettings()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	cfg, ws := cmp.Or(s.cfg.Connect, &Connect{}), cmp.Or(s.cfg.WebSocket, &WebSocket{})
	for _, l := range []struct {
		field     string
		addresses []string
		protocols []string // nil for clear text
		server    func() *http.Server
	}{
		{"connect.listen", cfg.Listen, connect.Protocols(), t.connect.Server},
		{"connect.plainListen", cfg.PlainListen, nil, t.connect.Server},
		{"websocket.listen", ws.Listen, []string{"http/1.1"}, t.websocket.Server},
	} {
		for _, address := range l.addresses {
			ln, err := s.inherited.open(ctx, address)
			if err != nil {
				return listenError(l.field, address, err)
			}
			own := tcpListener{name: l.field, server: l.server()}
			if l.protocols == nil {
				own.web = connect.Restrict(ln, settings.plainFrom, s.log)
			} else {
				secure := s.trust.clients()
				secure.NextProtos = l.protocols
				own.port = front.NewPort(ln, front.Config{Web: secure, ByName: s.names.only(secure), Balancers: s.balancers, Logger: s.log})
				own.web = own.port.Web()
			}
			t.seen.watch(own.server)
			t.listeners = append(t.listeners, own)
		}
	}
	return nil
}

// start runs the listeners by start, and says where they are.
func (t *tcpFronts) start(s *Server, start func(what string, f func() error)) {
	for _, l := range t.listeners {
		if l.port != nil {
			start(l.name, l.port.Serve)
		}
		start(l.name, func() error { return l.server.Serve(l.web) })
		s.log.Info("hub is serving", "what", l.name, "listen", l.web.Addr().String())
	}
}

// close ends the listeners. Requests and tunnels go on.
func (t *tcpFronts) close() error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, l := range t.listeners {
		var err error
		if l.port != nil {
			err = l.port.Close()
		} else if err = l.web.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("close listener: %s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

// shutdown waits until the requests have been answered that are under way, and cuts
// them when ctx ends. Tunnels end with their sessions.
func (t *tcpFronts) shutdown(ctx context.Context) error {
	var errs []error
	for _, l := range t.listeners {
		if err := l.server.Shutdown(ctx); err != nil {
			errs = append(errs, l.server.Close())
		}
	}
	return errors.Join(errs...)
}
