package agent

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
)

// mounted is a folder as Kubernetes mounts a Secret: the files are links into a
// folder that is swapped.
func mounted(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	data, err := os.MkdirTemp(dir, "..data-") //nolint:usetesting // it has to be below dir
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(data, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	fresh := filepath.Join(dir, "..fresh")
	if err := errors.Join(os.Symlink(filepath.Base(data), fresh), os.Rename(fresh, filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
}

func TestOperatorsCertificates(t *testing.T) {
	t.Run("K6,N7: a mounted folder is used without a join, followed when it is swapped, and kept when the new one is bad", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		dir := t.TempDir()
		chain, key := h.issue("edge-1", time.Hour)
		mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: key, fileCA: h.serving.PEM()})
		var log lines
		cfg := h.config(&log)
		cfg.State, cfg.Hub, cfg.CertDir = "", h.address(), dir
		a, _ := h.run(cfg)
		<-h.links
		serial := func() string { return a.trust.certificate().Leaf.SerialNumber.String() }
		before := serial()
		chain, key = h.issue("edge-1", time.Hour)
		mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: key, fileCA: h.serving.PEM()})
		if err := a.Reload(); err != nil {
			t.Fatal(err)
		}
		after := serial()
		if after == before {
			t.Error("the new certificate is not in force")
		}
		mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: []byte("broken"), fileCA: h.serving.PEM()})
		if err := a.Reload(); err == nil || !strings.Contains(err.Error(), "tls.key") {
			t.Errorf("%v", err)
		}
		if serial() != after {
			t.Error("the good certificate is gone")
		}
		health := a.Health()
		if len(health) != 2 || health[0].Name != nameCertificate || health[0].LastError == "" || health[0].Failures == 0 || health[1].Name != nameHubCA || health[1].NotAfter.IsZero() {
			t.Errorf("%+v", health)
		}
	})
	t.Run("K6: an expired certificate that nobody renews here is explained", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		dir := t.TempDir()
		chain, key := h.issue("edge-1", time.Second)
		if err := pki.WriteKeyPair(dir, chain, key, h.serving.PEM()); err != nil {
			t.Fatal(err)
		}
		certs, err := certificates(chain)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Until(certs[0].NotAfter) + time.Millisecond)
		cfg := h.config(io.Discard)
		cfg.State, cfg.Hub, cfg.CertDir = "", h.address(), dir
		_, err = New(cfg)
		for _, part := range []string{"agent certificate", "expired at", "spiffe://culvert.local/cluster/edge-1", "whoever made it has to replace it", "culvert token create"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v lacks %q", err, part)
			}
		}
	})
}

func TestMetricsPort(t *testing.T) {
	h := newTestHub(t, time.Hour)
	var log lines
	cfg := h.config(&log)
	cfg.MetricsListen = "127.0.0.1:0"
	_, token := h.token("edge-1")
	if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
		t.Fatal(err)
	}
	a, _ := h.run(cfg)
	<-h.links
	eventually(t, "it is connected", a.Connected)
	_, address, _ := strings.Cut(log.with("metrics are served")[0], "listen=")
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get("http://" + strings.TrimSpace(address) + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for path, part := range map[string]string{
		"/metrics":        `culvert_certificate_expiry_timestamp_seconds{name="agent certificate"}`,
		"/healthz":        "ok",
		"/readyz?verbose": "[+]agent certificate ok: spiffe://culvert.local/cluster/edge-1, expires",
	} {
		if text := get(path); !strings.Contains(text, part) {
			t.Errorf("%s lacks %q: %s", path, part, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
