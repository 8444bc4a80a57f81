package https

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// serveOwn answers the hub's own paths, which need no credential.
func (h *Handler) serveOwn(x *relay.Exchange, r *http.Request, name string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget,
			Err: errors.New("method: the hub's own paths take GET and HEAD")}
	}
	switch name {
	case "healthz":
		return h.text(x, "text/plain; charset=utf-8", []byte("ok\n"))
	case "readyz":
		return h.serveReady(x, r)
	case "ca.crt":
		if len(h.cfg.CACert) > 0 {
			return h.text(x, "application/x-pem-file", h.cfg.CACert)
		}
	}
	return &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeNotFound,
		Err: errors.New("path: the hub has no such path, want /-/healthz, /-/readyz or /-/ca.crt")}
}

func (h *Handler) serveReady(x *relay.Exchange, r *http.Request) error {
	var err error
	if h.cfg.Ready != nil {
		err = h.cfg.Ready()
	}
	_, verbose := r.URL.Query()["verbose"]
	if err != nil {
		if !verbose {
			h.cfg.Logger.WarnContext(r.Context(), "not ready", "error", err)
			err = errors.New("the hub is not ready, ask with ?verbose for the reason")
		}
		return &fault.Error{Hop: wire.HopHub, Op: "readyz", Code: wire.CodeUnavailable, Err: err}
	}
	body := "ok\n"
	if verbose {
		body = "[+]ping ok\n[+]hub ok\nreadyz check passed\n"
	}
	return h.text(x, "text/plain; charset=utf-8", []byte(body))
}

func (h *Handler) text(x *relay.Exchange, contentType string, body []byte) error {
	x.Header().Set("Content-Type", contentType)
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := x.Write(body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		return &fault.Error{Hop: wire.HopClient, Op: "write answer", Code: wire.CodeCanceled, Err: fmt.Errorf("own path: %w", err)}
	}
	return nil
}
