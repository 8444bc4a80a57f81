package websocket

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// The limits of [Handler.Server].
const (
	// ReadHeaderTimeout bounds how long a client may take to send a head.
	ReadHeaderTimeout = 20 * time.Second
	// IdleTimeout is how long a connection without a request is kept.
	IdleTimeout = time.Minute
	// MaxHeaderBytes bounds a request's head, in bytes: a token and its fields.
	MaxHeaderBytes = 64 << 10
)

// Server returns a server for listeners of this front end alone, HTTP/1.1 over TLS,
// with the limits above. Every other path is not found. The caller runs it and shuts
// it down. Each call returns a new server.
func (h *Handler) Server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(h.serveAlone),
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelInfo),
	}
}

func (h *Handler) serveAlone(w http.ResponseWriter, r *http.Request) {
	if route.IsTCP(r) {
		h.ServeHTTP(w, r)
		return
	}
	r = answer.WithRequestID(r)
	_, err := answer.Write(w, r, &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeNotFound,
		Err: errors.New("path: want " + route.TCPPrefix + "<cluster>/<host>:<port>")})
	if err != nil {
		h.cfg.Logger.DebugContext(r.Context(), "websocket answered", "request_id", answer.RequestID(r.Context()), "write_error", err)
	}
}
