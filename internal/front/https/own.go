package https

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// serveOwn answers the hub's own paths: those for administrators, and those that
// need no credential.
func (h *Handler) serveOwn(v *visit) error {
	if h.isKubeconfig(v.to.Own) {
		return h.serveKubeconfig(v)
	}
	if h.isSelf(v.to.Own) {
		return h.serveSelf(v)
	}
	if h.cfg.Admin != nil && strings.HasPrefix(v.to.Own, adminPaths) {
		return h.serveAdmin(v)
	}
	v.quiet = true
	return h.servePublic(v.x, v.r, v.to.Own)
}

func (h *Handler) servePublic(x *relay.Exchange, r *http.Request, name string) error {
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
		if h.cfg.CA != nil {
			if bundle := h.cfg.CA(); len(bundle) > 0 {
				return h.serveCA(x, r, bundle)
			}
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
		body = "[+]ping ok\n[+]hub ok\n"
		if h.cfg.Health != nil {
			body += telemetry.Lines(h.cfg.Health(), time.Now())
		}
		body += "readyz check passed\n"
	}
	return h.text(x, "text/plain; charset=utf-8", []byte(body))
}

// HeaderFingerprint is on the answer of /-/ca.crt: the SHA-256 of the bundle's
// first certificate, as openssl x509 -fingerprint -sha256 prints it.
const HeaderFingerprint = "X-Culvert-CA-Fingerprint"

// serveCA answers with the bundle or, with ?fingerprint, with one line for each
// certificate of it. Neither is a secret, and neither proves anything to who has
// no other way to know the fingerprint.
func (h *Handler) serveCA(x *relay.Exchange, r *http.Request, bundle []byte) error {
	var lines strings.Builder
	first := ""
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return &fault.Error{Hop: wire.HopHub, Op: "ca.crt", Code: wire.CodeInternal, Err: err}
		}
		fingerprint := pki.Fingerprint(cert)
		if first == "" {
			first = fingerprint
		}
		fmt.Fprintf(&lines, "%s %q\n", fingerprint, cert.Subject.String())
	}
	x.Header().Set(HeaderFingerprint, first)
	if _, asked := r.URL.Query()["fingerprint"]; asked {
		return h.text(x, "text/plain; charset=utf-8", []byte(lines.String()))
	}
	return h.text(x, "application/x-pem-file", bundle)
}

// adminPaths begin what of the hub's own paths is for its administrators.
const adminPaths = "v1/"

// serveAdmin authenticates an administrator as any other caller, by what the hub
// itself knows.
func (h *Handler) serveAdmin(v *visit) error {
	if err := h.admit(v); err != nil {
		return err
	}
	switch as, err := identity.ParseAssumed(v.r.Header); {
	case err != nil:
		return err
	case as != nil: // never ignored: the caller believes to be somebody else
		return &fault.Error{Hop: wire.HopHub, Op: "administer", Code: wire.CodePermissionDenied,
			Err: errors.New("a hub is administered as oneself: leave the Impersonate headers out")}
	}
	if err := h.identify(v, ""); err != nil {
		return err
	}
	if err := h.limit(v); err != nil {
		return err
	}
	return h.cfg.Admin(v.x, v.r, v.caller.User)
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
