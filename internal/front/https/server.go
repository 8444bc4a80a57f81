package https

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"github.com/culvertdev/culvert/internal/relay"
)

// The limits of [Handler.Server].
const (
	// ReadHeaderTimeout bounds how long a client may take to send a head.
	ReadHeaderTimeout = 20 * time.Second
	// IdleTimeout is how long a connection without a request is kept. Streams
	// are never idle in this sense.
	IdleTimeout = 5 * time.Minute
	// MaxHeaderBytes bounds a request's head, in bytes, unless Config.HeaderBytes
	// does.
	MaxHeaderBytes = 256 << 10
	// MaxConcurrentStreams bounds the requests of one HTTP/2 connection. It is
	// that of kube-apiserver times four: one client watches many clusters.
	MaxConcurrentStreams = 1000
	// uploadStream and uploadConnection bound what is received and not yet
	// sent on, in bytes, of one HTTP/2 request and of one connection.
	uploadStream     = 1 << 20
	uploadConnection = 3 << 20
)

// Server returns a server of this handler with the limits above, HTTP/1.1 and
// HTTP/2. The caller gives it a TLS listener whose configuration offers "h2" and
// "http/1.1" (Serve with a [crypto/tls.Listener], or ServeTLS), runs it and shuts
// it down; neither reading nor writing has a time limit once a head was read.
// Each call returns a new server.
func (h *Handler) Server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    cmp.Or(h.cfg.HeaderBytes, MaxHeaderBytes),
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          MaxConcurrentStreams,
			MaxReceiveBufferPerStream:     uploadStream,
			MaxReceiveBufferPerConnection: uploadConnection,
		},
		ConnContext: relay.ConnContext,
		ErrorLog:    slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelInfo),
	}
}
