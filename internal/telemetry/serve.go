package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Handler answers GET /metrics, /healthz and /readyz, the last with ?verbose in
// full. It asks nobody who they are.
func (t *Telemetry) Handler() http.Handler { return t.handler }

func (t *Telemetry) serveHealth(w http.ResponseWriter, _ *http.Request) {
	t.text(w, http.StatusOK, "ok\n")
}

func (t *Telemetry) serveReady(w http.ResponseWriter, r *http.Request) {
	var err error
	if t.cfg.Ready != nil {
		err = t.cfg.Ready()
	}
	_, verbose := r.URL.Query()["verbose"]
	switch {
	case err != nil:
		t.text(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
	case verbose:
		t.text(w, http.StatusOK, "[+]ping ok\n"+Lines(t.cfg.Health(), time.Now())+"readyz check passed\n")
	default:
		t.text(w, http.StatusOK, "ok\n")
	}
}

func (t *Telemetry) text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := io.WriteString(w, body); err != nil {
		t.cfg.Logger.Debug("a check's answer could not be written", "error", err)
	}
}

const (
	headTimeout = 5 * time.Second
	answerTime  = 30 * time.Second
	idleTime    = time.Minute
	maxHead     = 16 << 10
)

// Server serves a Telemetry's handler, or the debug listener's, in clear text on
// one address. It is safe for concurrent use.
type Server struct {
	what string
	ln   net.Listener
	http *http.Server
}

// Listen takes an address, host:port or :port; Serve answers on it. The caller
// closes the Server. The context bounds the call only.
func (t *Telemetry) Listen(ctx context.Context, address string) (*Server, error) {
	return listen(ctx, "metrics", address, t.handler, t.cfg.Logger)
}

func listen(ctx context.Context, what, address string, handler http.Handler, log *slog.Logger) (*Server, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", what, err)
	}
	return &Server{what: what, ln: ln, http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       headTimeout,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve answers until Close; then it returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.what, err)
	}
	return nil
}

// Close ends the answers under way and frees the address, also when Serve was
// never called. It may be called more than once.
func (s *Server) Close() error {
	err := errors.Join(s.http.Close(), s.ln.Close())
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
