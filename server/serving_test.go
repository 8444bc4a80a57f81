package server_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

// outside is a certificate authority that is not the hub's.
type outside struct {
	t    *testing.T
	auth *pki.Authority
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	auth, err := pki.LoadOrCreate(t.TempDir(), pki.RoleServing)
	if err != nil {
		t.Fatal(err)
	}
	return &outside{t, auth}
}

// issue returns a certificate for names with its key, PEM.
func (o *outside) issue(names ...string) (cert, key string) {
	o.t.Helper()
	private, err := pki.NewKey()
	if err != nil {
		o.t.Fatal(err)
	}
	certPEM, err := o.auth.IssueServing(private.Public(), names, time.Hour)
	if err != nil {
		o.t.Fatal(err)
	}
	return string(certPEM), encodeKey(o.t, private)
}

func encodeKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	encoded, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func (o *outside) trusted(cfg *tls.Config) { cfg.RootCAs = o.auth.Pool() }

// shown is the certificate that the hub shows for a name.
func (h *hub) shown(name string) *x509.Certificate {
	h.t.Helper()
	state, err := h.dial(func(cfg *tls.Config) {
		cfg.ServerName, cfg.InsecureSkipVerify = name, true
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return state.PeerCertificates[0]
}

func TestOwnCertificate(t *testing.T) {
	cfg := config(t)
	cfg.TLSNames = []string{"hub.example.com", "localhost"}
	cfg.TLS = &server.TLS{Service: "culvert/hub"}
	cfg.Certificates = &server.Certificates{}
	cfg.Certificates.ServingLifetime.Duration = 48 * time.Hour
	h := start(t, cfg)
	leaf := h.shown("localhost")
	t.Run("O8,P25: without a certificate the hub issues its own, and says so with the fingerprint of its CA", func(t *testing.T) {
		block, _ := pem.Decode(h.server.ServingCA())
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		contains(t, "log", h.log.String(), "the hub's certificate is from its own CA", "hub.example.com", pki.Fingerprint(ca), "/-/ca.crt")
		_, body := h.get("GET", "/-/readyz?verbose", "")
		contains(t, "readiness", body, "[+]own serving certificate ok", "[+]agents CA ok", "[+]token file ok", "readyz check passed")
		if strings.Contains(body, "tok-ada") || strings.Contains(body, "PRIVATE") {
			t.Errorf("a secret is shown: %s", body)
		}
	})
	t.Run("O9: the certificate has the Service's names and the lifetime that is set", func(t *testing.T) {
		for _, name := range []string{"hub", "hub.culvert", "hub.culvert.svc", "hub.culvert.svc.cluster.local", "hub.example.com"} {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
		if left := time.Until(leaf.NotAfter); left > 48*time.Hour || left < 47*time.Hour {
			t.Errorf("valid for %v", left)
		}
	})
	t.Run("P16,P25: the CA is handed out, with all that are trusted after a rotation", func(t *testing.T) {
		if _, body := h.get("GET", "/-/ca.crt", ""); strings.Count(body, "BEGIN CERTIFICATE") != 1 {
			t.Errorf("%s", body)
		}
		before := h.roots()
		if _, err := h.admin.RotateAuthority(t.Context(), pki.RoleServing); err != nil {
			t.Fatal(err)
		}
		if _, body := h.get("GET", "/-/ca.crt", ""); strings.Count(body, "BEGIN CERTIFICATE") != 2 {
			t.Errorf("%s", body)
		}
		if _, lines := h.get("GET", "/-/ca.crt?fingerprint", ""); strings.Count(lines, "\n") != 2 {
			t.Errorf("%s", lines)
		}
		if h.shown("localhost").Issuer.String() == leaf.Issuer.String() {
			t.Error("the certificate is still from the old CA")
		}
		if _, err := h.dial(func(cfg *tls.Config) { cfg.RootCAs = before }); err != nil {
			t.Errorf("who knows the old CA only: %v", err)
		}
	})
	t.Run("P16: a join token pins the CA of the name that agents use", func(t *testing.T) {
		made := h.token(admin.TokenRequest{Cluster: "edge-1"})
		if !strings.HasPrefix(made.Hub, "hub.example.com:") || len(made.Warnings) != 0 {
			t.Errorf("%+v", made)
		}
		made = h.token(admin.TokenRequest{Cluster: "edge-1", Hub: "other.example.com:443"})
		contains(t, "warnings", strings.Join(made.Warnings, "\n"), "certificate is not for other.example.com")
	})
}

func TestVersions(t *testing.T) {
	old := func(cfg *tls.Config) { cfg.MaxVersion = tls.VersionTLS12 }
	t.Run("D6: clients have TLS 1.3 by default", func(t *testing.T) {
		h := start(t, config(t))
		if _, err := h.dial(old); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS 1.2: %v", err)
		}
		if state, err := h.dial(nil); err != nil || state.Version != tls.VersionTLS13 {
			t.Errorf("%x, %v", state.Version, err)
		}
	})
	t.Run("D6: 1.2 is a setting, with forward secret suites only", func(t *testing.T) {
		cfg := config(t)
		cfg.TLS = &server.TLS{MinVersion: "1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}}
		h := start(t, cfg)
		state, err := h.dial(old)
		if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
			t.Errorf("%s, %v", tls.CipherSuiteName(state.CipherSuite), err)
		}
		if _, err := h.dial(func(cfg *tls.Config) {
			cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}); err == nil {
			t.Error("another suite was taken")
		}
	})
	t.Run("D6: the tunnel and enrolment have 1.3 whatever clients have", func(t *testing.T) {
		cfg := config(t)
		cfg.TLS = &server.TLS{MinVersion: "1.2"}
		h := start(t, cfg)
		for _, protocol := range []string{"culvert.tunnel.v1", "culvert.enrol.v1"} {
			if _, err := h.dial(func(cfg *tls.Config) { cfg.MaxVersion, cfg.NextProtos = tls.VersionTLS12, []string{protocol} }); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("%s: %v", protocol, err)
			}
		}
	})
}

func TestSuppliedCertificate(t *testing.T) {
	out := newOutside(t)
	cert, key := out.issue("localhost", "hub.example.com")
	base := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct {
		name  string
		files map[string]string
		set   func(cfg *server.Config, dir string)
	}{
		{"V11,P5: two PEM files", map[string]string{"a.cer": cert, "a.key": key}, func(cfg *server.Config, dir string) {
			cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "a.cer"), filepath.Join(dir, "a.key")
		}},
		{"P5: base64 of PEM", map[string]string{"a.cer": base(cert), "a.key": base(key)}, func(cfg *server.Config, dir string) {
			cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "a.cer"), filepath.Join(dir, "a.key")
		}},
		{"D5,D16: one file, the certificate first", map[string]string{"both.pem": cert + key}, func(cfg *server.Config, dir string) {
			cfg.TLSCert = filepath.Join(dir, "both.pem")
		}},
		{"D5,D16: one file, the key first", map[string]string{"both.pem": key + cert}, func(cfg *server.Config, dir string) {
			cfg.TLSCert = filepath.Join(dir, "both.pem")
		}},
		{"O10,P5: a mounted Secret", map[string]string{"s/tls.crt": cert, "s/tls.key": key, "s/ca.crt": string(out.auth.PEM())}, func(cfg *server.Config, dir string) {
			cfg.TLS = &server.TLS{Certificates: []server.ServingCertificate{{Dir: filepath.Join(dir, "s")}}}
		}},
		{"P5: text in the configuration", nil, func(cfg *server.Config, _ string) {
			cfg.TLS = &server.TLS{Certificates: []server.ServingCertificate{{CertData: cert, KeyData: base(key)}}}
		}},
	} {
		t.Run(c.name+" is served", func(t *testing.T) {
			cfg, dir := config(t), t.TempDir()
			for name, text := range c.files {
				write(t, filepath.Join(dir, name), text)
			}
			c.set(&cfg, dir)
			h := start(t, cfg)
			if _, err := h.dial(out.trusted); err != nil {
				t.Error(err)
			}
		})
	}
	otherCert, otherKey := out.issue("other.example.com")
	oldCert, oldKey := expired(t, "localhost")
	for _, c := range []struct {
		name, cert, key string
		set             func(*server.Config)
		says            []string
	}{
		{"key of another certificate", cert, otherKey, nil, []string{"tlsCert, tlsKey", "is not the key of"}},
		{"names that are set and not in it", otherCert, otherKey, func(c *server.Config) { c.TLSNames = []string{"hub.example.com"} },
			[]string{`it is not for "hub.example.com" but for "other.example.com"`}},
		{"expired", oldCert, oldKey, nil, []string{"expired at 2020-01-02T00:00:00Z", "replace it"}},
		{"half a file", cert[:len(cert)/2], key, nil, []string{"half-written or damaged"}},
		{"certificate of an authority", string(out.auth.PEM()), key, nil, []string{"is not the key of"}},
		{"CA that has not signed it", cert, key, func(c *server.Config) {
			ca := filepath.Join(filepath.Dir(c.TLSCert), "ca.crt")
			c.TLS = &server.TLS{CA: ca}
		}, []string{"is not complete", "the given CA"}},
	} {
		t.Run("P5: refused with the exact reason: "+c.name, func(t *testing.T) {
			cfg, dir := config(t), t.TempDir()
			cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
			write(t, cfg.TLSCert, c.cert)
			write(t, cfg.TLSKey, c.key)
			write(t, filepath.Join(dir, "ca.crt"), string(newOutside(t).auth.PEM()))
			if c.set != nil {
				c.set(&cfg)
			}
			s, err := server.New(t.Context(), cfg)
			if err == nil {
				t.Fatal("it was taken", s.Close())
			}
			contains(t, "error", err.Error(), c.says...)
		})
	}
}
