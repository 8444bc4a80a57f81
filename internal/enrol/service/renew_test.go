package service_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// connected waits for the link of a dialler.
func (b *bed) connected(d *tunnel.Dialer) {
	b.t.Helper()
	<-b.links
	eventually(b.t, "the dialler has its connection", func() bool { return d.Conn() != nil })
}

func TestRenew(t *testing.T) {
	t.Run("O9,N7: an agent renews over its tunnel, again and again, with a new key each time", func(t *testing.T) {
		b := newBed(t, nil)
		cert, _ := b.joined()
		d := b.dial(cert, io.Discard)
		b.connected(d)
		serials := map[string]bool{cert.Leaf.SerialNumber.String(): true}
		for range 3 {
			key, err := pki.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			got, err := enrol.Renew(t.Context(), d.Conn(), key, trustDomain, "edge-1")
			if err != nil {
				t.Fatal(err)
			}
			if string(got.HubCA) != string(b.serving.PEM()) || serials[got.Leaf.SerialNumber.String()] {
				t.Errorf("%+v", got)
			}
			serials[got.Leaf.SerialNumber.String()] = true
		}
		kept, err := b.store.Certificates("edge-1")
		if err != nil || len(kept) != 4 || kept[3].Previous != kept[2].Serial {
			t.Errorf("%+v, %v", kept, err)
		}
		if said := b.log.with("certificate renewed"); len(said) != 3 {
			t.Errorf("log: %q", said)
		}
	})
	t.Run("O9: an agent gets the hub's CAs alone, and sees a rotation in them", func(t *testing.T) {
		b := newBed(t, nil)
		cert, _ := b.joined()
		d := b.dial(cert, io.Discard)
		b.connected(d)
		before, err := enrol.Renew(t.Context(), d.Conn(), nil, trustDomain, "edge-1")
		if err != nil || before.Leaf != nil || before.Chain != nil {
			t.Fatalf("%+v, %v", before, err)
		}
		if _, err := b.serving.Rotate(); err != nil {
			t.Fatal(err)
		}
		after, err := enrol.Renew(t.Context(), d.Conn(), nil, trustDomain, "edge-1")
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(after.HubCA), "BEGIN CERTIFICATE"); n != 2 || !bytes.Contains(after.HubCA, before.HubCA) {
			t.Errorf("%d CAs: %s", n, after.HubCA)
		}
	})
	t.Run("N7: a revoked cluster cannot renew, even over a link that is not cut yet", func(t *testing.T) {
		b := newBed(t, nil)
		cert, _ := b.joined()
		d := b.dial(cert, io.Discard)
		b.connected(d)
		if _, err := b.store.RevokeCluster("edge-1", "admin", "stolen", time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, key := range []bool{true, false} {
			var err error
			if key {
				fresh, keyErr := pki.NewKey()
				if keyErr != nil {
					t.Fatal(keyErr)
				}
				_, err = enrol.Renew(t.Context(), d.Conn(), fresh, trustDomain, "edge-1")
			} else {
				_, err = enrol.Renew(t.Context(), d.Conn(), nil, trustDomain, "edge-1")
			}
			var refused *enrol.Error
			if !errors.As(err, &refused) || refused.Reason != culvertv1.EnrolmentReason_ENROLMENT_REASON_CLUSTER_REVOKED {
				t.Fatalf("%v", err)
			}
			if !strings.Contains(err.Error(), "cluster edge-1 was revoked at ") || !strings.Contains(err.Error(), "(stolen)") {
				t.Errorf("%v", err)
			}
		}
		said := b.log.with("renewal refused")
		if len(said) != 2 || !strings.Contains(said[0], "cluster=edge-1") || !strings.Contains(said[0], "stolen") {
			t.Errorf("log: %q", said)
		}
		t.Logf("hub: %s", said[0])
		// And it is cut, refused at the next handshake, and back with a new token.
		b.tunnels.Cut("edge-1", wire.CodeUnauthenticated, "cluster edge-1 was revoked")
		var log lines
		b.dial(cert, &log)
		eventually(t, "the old certificate is refused", func() bool { return strings.Contains(log.String(), "refused this agent's certificate") })
		again, _ := b.joined()
		d = b.dial(again, io.Discard)
		b.connected(d)
		if _, err := enrol.Renew(t.Context(), d.Conn(), nil, trustDomain, "edge-1"); err != nil {
			t.Errorf("after a new token: %v", err)
		}
	})
	t.Run("N7: what an operator's own CA signed does not become the hub's", func(t *testing.T) {
		other, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "other"), pki.RoleAgents)
		if err != nil {
			t.Fatal(err)
		}
		b := newBed(t, nil)
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := other.SignAgent(key.Public(), trustDomain, "edge-1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		who := acceptor.Renewal{Cluster: "edge-1", Addr: address{}, Certificate: foreign.Certificate}
		_, _, err = b.service.Renew(t.Context(), who, &culvertv1.RenewRequest{Csr: csr})
		if err == nil || !strings.Contains(err.Error(), "whoever made it has to renew it") {
			t.Errorf("%v", err)
		}
		if resp, issued, err := b.service.Renew(t.Context(), who, &culvertv1.RenewRequest{}); err != nil || issued != nil || len(resp.GetHubCa()) == 0 {
			t.Errorf("the CAs alone: %v, %v, %v", resp, issued, err)
		}
	})
	t.Run("N7: an issuer that makes another cluster's certificate is not believed", func(t *testing.T) {
		b := newBed(t, func(c *service.Config) { c.Issuer = confused{c.Issuer} })
		cert := operatorCert(t, b, "edge-1")
		d := b.dial(cert, io.Discard)
		b.connected(d)
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		_, err = enrol.Renew(t.Context(), d.Conn(), key, trustDomain, "edge-1")
		if err == nil || !strings.Contains(err.Error(), "internal error of the hub") {
			t.Errorf("%v", err)
		}
		if said := b.log.with("renewal refused"); len(said) != 1 || !strings.Contains(said[0], `certificate of \"edge-2\"`) {
			t.Errorf("log: %q", said)
		}
	})
	t.Run("a cluster that renews without end is slowed down", func(t *testing.T) {
		b := newBed(t, nil)
		cert, _ := b.joined()
		d := b.dial(cert, io.Discard)
		b.connected(d)
		for range 100 {
			_, err := enrol.Renew(t.Context(), d.Conn(), nil, trustDomain, "edge-1")
			var refused *enrol.Error
			if errors.As(err, &refused) && refused.Temporary() && refused.RetryAfter > 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Error("a hundred at once")
	})
}

// address is one that a test makes up.
type address struct{}

func (address) Network() string { return "tcp" }
func (address) String() string  { return "192.0.2.1:1" }

// confused signs for another cluster.
type confused struct{ service.Issuer }

func (c confused) SignAgent(pub crypto.PublicKey, trustDomain, _ string, lifetime time.Duration) (*pki.Issued, error) {
	return c.Issuer.SignAgent(pub, trustDomain, "edge-2", lifetime)
}

// operatorCert is a certificate that was made with the hub's CA, and not by
// enrolment.
func operatorCert(t *testing.T, b *bed, cluster string) tls.Certificate {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := b.agents.SignAgent(key.Public(), trustDomain, cluster, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(issued.Certificate.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}
