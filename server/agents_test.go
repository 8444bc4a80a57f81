package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

// foreignCA is an authority that is not the hub's.
type foreignCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newForeignCA(t *testing.T, name string) *foreignCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := &foreignCA{t: t, key: key}
	ca.cert = ca.sign(template, template, key)
	return ca
}

func (ca *foreignCA) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func (ca *foreignCA) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
}

// member is an agent with OCM's subject, whose certificate begins at a time.
func (ca *foreignCA) member(cluster, addon string, begins time.Time) *member {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	leaf := ca.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: begins, NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{
			CommonName: "system:open-cluster-management:cluster:" + cluster + ":addon:" + addon + ":agent:" + addon + "-agent",
			Organization: []string{
				"system:open-cluster-management:cluster:" + cluster + ":addon:" + addon,
				"system:open-cluster-management:addon:" + addon, "system:authenticated",
			},
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca.cert, key)
	return &member{pair: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}
}

// trusts gives a member of no enrolment the hub's CA.
func (h *hub) trusts(m *member) *member {
	m.enrolment = &enrol.Enrolment{HubCA: h.server.ServingCA()}
	return m
}

// refused connects m and returns the hub's line about it.
func (h *hub) refused(m *member) string {
	h.t.Helper()
	before := len(h.log.String())
	_, _, stop := h.connect(h.trusts(m))
	line := ""
	await(h.t, "the refusal", func() bool {
		for text := range strings.Lines(h.log.String()[before:]) {
			if strings.Contains(text, "tls handshake refused") {
				line = text
			}
		}
		return line != ""
	})
	stop()
	if n := len(h.server.Agents()); n != 0 {
		h.t.Errorf("%d agents", n)
	}
	return line
}

func TestAgentAuthorities(t *testing.T) {
	ocm, stranger := newForeignCA(t, "ocm-signer"), newForeignCA(t, "a stranger")
	begins := time.Now().Add(-time.Minute)
	cfg := config(t)
	file := filepath.Join(filepath.Dir(cfg.State), "ocm.crt")
	write(t, file, ocm.pem())
	cfg.AgentAuthorities = []server.AgentAuthority{{CA: file, OCM: server.OCMAddon{Addon: "culvert"}}}
	h := start(t, cfg)
	up := func(t *testing.T, m *member) (down func()) {
		t.Helper()
		_, _, stop := h.connect(h.trusts(m))
		await(t, "the agent", func() bool { return len(h.server.Agents()) == 1 })
		return func() {
			stop()
			await(t, "its end", func() bool { return len(h.server.Agents()) == 0 })
		}
	}
	t.Run("K11: an agent with the subject of OCM's addon is its cluster's", func(t *testing.T) {
		stop := up(t, ocm.member("edge-1", "culvert", begins))
		if got := h.server.Agents()[0].Cluster; got != "edge-1" {
			t.Errorf("cluster %q", got)
		}
		stop()
	})
	t.Run("K11: another addon, another CA, and a subject of the wrong CA are refused, each with its line", func(t *testing.T) {
		contains(t, "another addon", h.refused(ocm.member("edge-1", "proxy", begins)), "agentAuthorities[0]", `of the addon \"proxy\", want culvert`)
		contains(t, "another CA", h.refused(stranger.member("edge-1", "culvert", begins)), "not trusted here", "a stranger", "nor by one of agentAuthorities[0]")
		token := h.token(admin.TokenRequest{Cluster: "edge-2"})
		own, err := h.join(token.Text)
		if err != nil {
			t.Fatal(err)
		}
		up(t, own)()
		upper := ocm.member("Edge.1", "culvert", begins)
		contains(t, "an illegal name", h.refused(upper), "agentAuthorities[0]", "Edge.1")
	})
	t.Run("N7: the hub renews no certificate of another authority", func(t *testing.T) {
		dialer, _, stop := h.connect(h.trusts(ocm.member("edge-1", "culvert", begins)))
		await(t, "the agent", func() bool { return dialer.Conn() != nil })
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		_, err = enrol.Renew(t.Context(), dialer.Conn(), key, server.DefaultTrustDomain, "edge-1")
		if reason(err) != culvertv1.EnrolmentReason_ENROLMENT_REASON_NOT_ISSUED_HERE {
			t.Errorf("%v", err)
		}
		stop()
		await(t, "its end", func() bool { return len(h.server.Agents()) == 0 })
	})
	t.Run("N7: a revoked cluster stays out with new certificates of OCM's, until it is restored, and then with new ones alone", func(t *testing.T) {
		before := ocm.member("edge-1", "culvert", begins)
		stop := up(t, before)
		if done, err := h.admin.RevokeCluster(t.Context(), "edge-1", admin.RevokeRequest{Reason: "laptop stolen"}); err != nil || done.Cut != 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		stop()
		later := time.Now().Add(time.Second)
		await(t, "the next second, of which certificates are", func() bool { return time.Now().After(later) })
		after := ocm.member("edge-1", "culvert", time.Now())
		contains(t, "a new one", h.refused(after), "revoked", "laptop stolen", "culvert clusters restore edge-1")
		if _, err := h.admin.RestoreCluster(t.Context(), "edge-9"); err == nil || !strings.Contains(err.Error(), "not revoked") {
			t.Errorf("another cluster: %v", err)
		}
		if got, err := h.admin.RestoreCluster(t.Context(), "edge-1"); err != nil || got.State != admin.ClusterAway || got.Revocation.Restored.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := h.admin.RestoreCluster(t.Context(), "edge-1"); err == nil || !strings.Contains(err.Error(), "not revoked") {
			t.Errorf("twice: %v", err)
		}
		contains(t, "the old one", h.refused(before), "it was restored, but this certificate is from before")
		up(t, after)()
		contains(t, "log", h.log.String(), "cluster restored")
	})
	t.Run("N7: the CA's file is followed", func(t *testing.T) {
		write(t, file, stranger.pem())
		if err := h.server.Reload(); err != nil {
			t.Fatal(err)
		}
		up(t, stranger.member("edge-3", "culvert", begins))()
		contains(t, "the CA before", h.refused(ocm.member("edge-3", "culvert", begins)), "not trusted here")
	})
	t.Run("N7: a CA that comes under two rules while the hub runs is good for neither", func(t *testing.T) {
		m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-4"}).Text)
		if err != nil {
			t.Fatal(err)
		}
		list, err := h.admin.ListAuthorities(t.Context())
		if err != nil || list[0].Role != pki.RoleAgents {
			t.Fatalf("%+v, %v", list, err)
		}
		own, err := pki.LoadBundle(list[0].File)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, string(own.PEM()))
		if err := h.server.Reload(); err != nil {
			t.Fatal(err)
		}
		contains(t, "both", h.refused(m), "the hub's own agents CA and agentAuthorities[0]", "each CA belongs in one of them")
	})
}

func TestAgentAuthoritiesAtStart(t *testing.T) {
	ca := newForeignCA(t, "ocm-signer")
	cfg := config(t)
	dir := filepath.Dir(cfg.State)
	first, second, own := filepath.Join(dir, "first.crt"), filepath.Join(dir, "second.crt"), filepath.Join(dir, "own.crt")
	write(t, first, ca.pem())
	write(t, second, newForeignCA(t, "another").pem()+ca.pem())
	write(t, own, ca.pem())
	rule := server.OCMAddon{Addon: "culvert"}
	for _, c := range []struct {
		name        string
		authorities []server.AgentAuthority
		agentCA     string
		want        []string
	}{
		{"nothing set", []server.AgentAuthority{{}}, "", []string{"agentAuthorities[0].ca: required", "agentAuthorities[0].ocm.addon: required"}},
		{"no addon's name", []server.AgentAuthority{{CA: first, OCM: server.OCMAddon{Addon: "Culvert:x"}}}, "", []string{`agentAuthorities[0].ocm.addon: "Culvert:x" is not a DNS name`}},
		{"no file", []server.AgentAuthority{{CA: filepath.Join(dir, "none"), OCM: rule}}, "", []string{"agentAuthorities[0].ca: ", "none"}},
		{"a CA twice", []server.AgentAuthority{{CA: first, OCM: rule}, {CA: second, OCM: server.OCMAddon{Addon: "other"}}}, "", []string{"agentAuthorities[1].ca", "ocm-signer", "agentAuthorities[0] has too"}},
		{"the hub's own", []server.AgentAuthority{{CA: first, OCM: rule}}, own, []string{"agentAuthorities[0].ca", "the hub's own agents CA has too"}},
	} {
		t.Run("K11: "+c.name, func(t *testing.T) {
			cfg := cfg
			cfg.AgentAuthorities, cfg.AgentCA = c.authorities, c.agentCA
			s, err := server.New(t.Context(), cfg)
			if err == nil {
				_ = s.Close()
				t.Fatal("the hub starts")
			}
			contains(t, "the error", err.Error(), c.want...)
		})
	}
}
