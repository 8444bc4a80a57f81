package server_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/server"
)

func TestReload(t *testing.T) {
	out := newOutside(t)
	cfg, dir := config(t), t.TempDir()
	cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cfg.TLS = &server.TLS{CA: filepath.Join(dir, "ca.crt")}
	cfg.MetricsListen = "127.0.0.1:0"
	write(t, cfg.TLS.CA, string(out.auth.PEM()))
	h := start(t, cfg)
	t.Run("O8: a hub whose certificate is missing starts with its own, says so, and changes when the files appear", func(t *testing.T) {
		contains(t, "log", h.log.String(), "files are missing", "tls.crt", "the hub's certificate is from its own CA")
		if _, err := h.dial(nil); err != nil {
			t.Error(err)
		}
		_, body := h.get("GET", "/-/readyz?verbose", "")
		contains(t, "readiness", body, "[!]serving certificate WARNING", "tls.crt", "readyz check passed")
		cert, key := out.issue("localhost")
		write(t, cfg.TLSKey, key)
		write(t, cfg.TLSCert, cert)
		if err := h.server.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := h.dial(out.trusted); err != nil {
			t.Error(err)
		}
		if ca := string(h.server.ServingCA()); ca != string(out.auth.PEM()) {
			t.Errorf("handed out: %s", ca)
		}
	})
	t.Run("O10,N7: a new certificate is shown without a restart, and a bad one keeps the old and is reported", func(t *testing.T) {
		cert, key := out.issue("localhost", "new.example.com")
		write(t, cfg.TLSKey, key)
		write(t, cfg.TLSCert, cert)
		if err := h.server.Reload(); err != nil {
			t.Fatal(err)
		}
		if leaf := h.shown("localhost"); !slices.Contains(leaf.DNSNames, "new.example.com") {
			t.Errorf("%v", leaf.DNSNames)
		}
		write(t, cfg.TLSCert, "-----BEGIN CERTIFICATE-----\nhalf")
		if err := h.server.Reload(); err == nil || !strings.Contains(err.Error(), "half-written") {
			t.Errorf("%v", err)
		}
		if _, err := h.dial(out.trusted); err != nil {
			t.Error(err)
		}
		code, body := h.get("GET", "/-/readyz?verbose", "")
		contains(t, "readiness", body, "[!]serving certificate WARNING: the newest content cannot be used", "half-written", "readyz check passed")
		if code != 200 {
			t.Errorf("unready: %d", code)
		}
		metrics := fetch(t, "http://"+h.server.MetricsAddr().String()+"/metrics")
		contains(t, "metrics", metrics, `culvert_reload_failures_total{name="serving certificate"} `, `culvert_certificate_expiry_timestamp_seconds{name="serving certificate"} `)
		if strings.Contains(metrics, `culvert_reload_failures_total{name="serving certificate"} 0`) {
			t.Errorf("not counted: %s", metrics)
		}
	})
	t.Run("D22: the token file is taken up without a restart, and a bad one keeps the old", func(t *testing.T) {
		write(t, cfg.TokenFile, "tok-eve,eve,3\n")
		write(t, cfg.TLSCert, "bad") // one bad file does not keep the others
		if err := h.server.Reload(); err == nil {
			t.Error("no error")
		}
		if code, _ := h.ask(out, "tok-eve"); code != 403 {
			t.Errorf("new token: %d", code)
		}
		if code, _ := h.ask(out, "tok-ada"); code != 401 {
			t.Errorf("old token: %d", code)
		}
		write(t, cfg.TokenFile, "broken")
		if err := h.server.Reload(); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%v", err)
		}
		if code, _ := h.ask(out, "tok-eve"); code != 403 {
			t.Errorf("after a bad file: %d", code)
		}
	})
}

// ask calls an administrators' path, where a known caller gets 403.
func (h *hub) ask(_ *outside, token string) (int, string) { return h.get("GET", "/-/v1/tokens", token) }
