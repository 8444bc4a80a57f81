package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

func TestByName(t *testing.T) {
	out, users, strangers := newOutside(t), newUsers(t), newUsers(t)
	one, oneKey := out.issue("one.example.com")
	two, twoKey := out.issue("*.two.example.com")
	cfg := config(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "users.crt"), string(users.auth.PEM()))
	cfg.TLS = &server.TLS{
		ClientCA: filepath.Join(dir, "users.crt"),
		Certificates: []server.ServingCertificate{
			{CertData: one, KeyData: oneKey}, {CertData: two, KeyData: twoKey},
		},
	}
	h := start(t, cfg)
	t.Run("D16: each name has its certificate, chosen by SNI", func(t *testing.T) {
		for name, want := range map[string]string{
			"one.example.com": "one.example.com", "a.two.example.com": "*.two.example.com", "localhost": "localhost", "": "one.example.com",
		} {
			if got := h.shown(name).DNSNames; !slices.Contains(got, want) {
				t.Errorf("%s: %v, want %s", name, got, want)
			}
		}
	})
	t.Run("D20: a name that no certificate has is refused as such", func(t *testing.T) {
		for _, name := range []string{"unknown.example.com", "a.b.two.example.com", "two.example.com", "example.com"} {
			_, err := h.dial(func(cfg *tls.Config) { cfg.ServerName = name })
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("D16: client certificates are asked for where a CA for them is set, and judged in the handshake", func(t *testing.T) {
		with := func(pair tls.Certificate, asked *bool) func(*tls.Config) {
			return func(cfg *tls.Config) {
				cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					*asked = true
					return &pair, nil
				}
			}
		}
		var asked bool
		if _, err := h.dial(with(users.client("alice"), &asked)); err != nil || !asked {
			t.Errorf("%v, asked %v", err, asked)
		}
		if _, err := h.dial(with(strangers.client("alice"), &asked)); err == nil {
			t.Error("a stranger's certificate was taken")
		}
		// The client knows before the hub has written its line.
		await(t, "the refusal in the log", func() bool { return strings.Contains(h.log.String(), "client certificate: x509") })
		asked = false
		plain := start(t, config(t))
		if _, err := plain.dial(with(users.client("alice"), &asked)); err != nil || asked {
			t.Errorf("%v, asked %v", err, asked)
		}
	})
	t.Run("N7: an agent's certificate is none of a caller's", func(t *testing.T) {
		m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1", Hub: h.address()}).Text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.dial(func(cfg *tls.Config) { cfg.Certificates = []tls.Certificate{m.pair} }); err == nil {
			t.Error("it was taken")
		}
		contains(t, "log", h.log.String(), "client certificate: x509: certificate signed by unknown authority")
	})
}

func TestOperatorCA(t *testing.T) {
	state := t.TempDir()
	if _, err := pki.LoadOrCreate(state, pki.RoleAgents); err != nil {
		t.Fatal(err)
	}
	caFile, keyFile := filepath.Join(state, "agents-ca.crt"), filepath.Join(state, "agents-ca.key")
	t.Run("O9: an operator's CA with its key enrols, and is not rotated by the hub", func(t *testing.T) {
		cfg := config(t)
		cfg.Certificates = &server.Certificates{Agents: &server.CAFiles{Cert: caFile, Key: keyFile}}
		h := start(t, cfg)
		m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1"}).Text)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := pki.LoadAuthority(pki.RoleAgents, caFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.enrolment.Leaf.Verify(x509.VerifyOptions{Roots: auth.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		if _, err := h.admin.RotateAuthority(t.Context(), pki.RoleAgents); err == nil || !strings.Contains(err.Error(), "its owner replaces the files") {
			t.Errorf("%v", err)
		}
	})
	t.Run("O9: an operator's CA without its key is trusted, and no token is made that could not be used", func(t *testing.T) {
		cfg := config(t)
		cfg.AgentCA = caFile
		h := start(t, cfg)
		if _, err := h.admin.CreateToken(t.Context(), admin.TokenRequest{Cluster: "edge-1"}); err == nil || !strings.Contains(err.Error(), "not its key, so that it cannot enrol") {
			t.Errorf("%v", err)
		}
		authorities, err := h.admin.ListAuthorities(t.Context())
		if err != nil || len(authorities) != 4 || authorities[0].Signs || authorities[0].File != caFile || !authorities[1].Signs {
			t.Errorf("%+v, %v", authorities, err)
		}
	})
	t.Run("O9: a CA's key that others can read is refused, or warned about, as set", func(t *testing.T) {
		if err := os.Chmod(keyFile, 0o644); err != nil {
			t.Fatal(err)
		}
		cfg := config(t)
		cfg.Certificates = &server.Certificates{Agents: &server.CAFiles{Cert: caFile, Key: keyFile}}
		if s, err := server.New(t.Context(), cfg); err == nil {
			t.Error("taken", s.Close())
		} else {
			contains(t, "error", err.Error(), "certificates.agents", "chmod 600 "+keyFile)
		}
		cfg.Certificates.OpenKeys = "warn"
		h := start(t, cfg)
		contains(t, "log", h.log.String(), "chmod 600 "+keyFile)
	})
}
