package connect

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// The limits of [Handler.Server].
const (
	// ReadHeaderTimeout bounds how long a client may take to send a head.
	ReadHeaderTimeout = 20 * time.Second
	// IdleTimeout is how long a connection without a request is kept. Tunnels are
	// never idle in this sense.
	IdleTimeout = time.Minute
	// MaxHeaderBytes bounds a request's head, in bytes: a token and its fields.
	MaxHeaderBytes = 64 << 10
	// MaxConcurrentStreams bounds the tunnels of one HTTP/2 connection.
	MaxConcurrentStreams = 250
)

// Protocols are the ALPN names of a TLS listener for this front end, in the order
// of preference. HTTP/1.1 is first: the HTTP transport of Go, and so kubectl, offers
// h2 to a proxy as well and then speaks HTTP/1.1 whatever was chosen (net/http
// Transport.addTLS). Clients that mean HTTP/2 offer it alone.
func Protocols() []string { return []string{"http/1.1", "h2"} }

// Server returns a server of this handler for listeners of its own, plain or TLS,
// with the limits above. The caller runs it and shuts it down. Each call returns a
// new server.
func (h *Handler) Server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: MaxConcurrentStreams},
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelInfo),
	}
}

// Restrict returns a listener that takes connections from networks alone. Others
// are reset before a byte of theirs is read. ln belongs to the returned listener.
func Restrict(ln net.Listener, networks []netip.Prefix, log *slog.Logger) net.Listener {
	return &restricted{Listener: ln, networks: networks, log: log}
}

type restricted struct {
	net.Listener

	networks []netip.Prefix
	log      *slog.Logger
}

// Accept implements [net.Listener].
func (l *restricted) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.allows(conn.RemoteAddr()) {
			return conn, err
		}
		l.log.Warn("connection refused: its network is not one of connect.plainAllowFrom",
			"listen", l.Addr().String(), "remote", conn.RemoteAddr().String())
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails on a closed connection only
		}
		_ = conn.Close() // it is of no use any more
	}
}

func (l *restricted) allows(remote net.Addr) bool {
	from, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return false
	}
	ip := from.Addr().Unmap().WithZone("")
	for _, network := range l.networks {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}
