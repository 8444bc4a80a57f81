package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// WebBody is the length of the trivial service's answer, in bytes.
const WebBody = 1 << 10

// WebServer returns the trivial service: every request is answered with WebBody
// bytes. The caller serves it.
func WebServer() *http.Server {
	body := Block()[:WebBody]
	return &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body) // the client sees what is missing
		}),
	}
}

// ServeWeb serves over TLS with the key pair of the files until ctx ends, and
// closes the server.
func ServeWeb(ctx context.Context, s *http.Server, l net.Listener, cert, key string) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(l, cert, key); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web service: %w", err)
	}
	return nil
}
