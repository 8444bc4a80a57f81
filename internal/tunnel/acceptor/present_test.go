package acceptor_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// issueFor is issue for a key of any kind.
func issueFor(t *testing.T, ca tls.Certificate, cluster string, until time.Time, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cluster},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// rotating is an agent whose certificate changes.
func rotating(t *testing.T, h *hub, cert tls.Certificate) (*tunnel.Dialer, *atomic.Pointer[tls.Certificate]) {
	t.Helper()
	current := &atomic.Pointer[tls.Certificate]{}
	current.Store(&cert)
	one := &hub{t: t, pool: h.pool, cert: cert, address: h.address}
	d := one.dialWith(t, io.Discard, func() *tls.Config {
		return &tls.Config{RootCAs: h.pool, MinVersion: tls.VersionTLS13, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return current.Load(), nil
		}}
	})
	eventually(t, "the dialler has its connection, while its certificate is good", func() bool {
		return d.Conn() != nil || time.Now().After(cert.Leaf.NotAfter)
	})
	return d, current
}

// inTime tries with certificates of longer and longer lives, until the machine was quick
// enough to do with the first of them what is to be done with it.
func inTime(t *testing.T, try func(life time.Duration) bool) {
	t.Helper()
	for life := 2 * time.Second; !try(life); life *= 2 {
		if life > time.Minute {
			t.Fatalf("not even %v were enough", life)
		}
	}
}

// firstLink is the link that comes while cert is good, or nil.
func firstLink(h *hub, cert tls.Certificate) *mux.Link {
	select {
	case link := <-h.links:
		return link
	case <-time.After(time.Until(cert.Leaf.NotAfter)):
		return nil
	}
}

// outlives wants a link with a session of an echo to go on after the end of first, and to
// end with next.
func outlives(t *testing.T, link *mux.Link, s *mux.Session, first, next tls.Certificate, meanwhile func()) {
	t.Helper()
	select {
	case <-link.Done():
		t.Fatalf("the link ended with the first certificate: %v", link.Err())
	case <-time.After(time.Until(first.Leaf.NotAfter) + 100*time.Millisecond):
	}
	meanwhile()
	if _, err := s.Write([]byte("still")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	select {
	case <-link.Done():
	case <-time.After(time.Until(next.Leaf.NotAfter) + patience):
		t.Fatal("the link outlives its certificate")
	}
	if late := time.Since(next.Leaf.NotAfter); late < 0 {
		t.Errorf("the link ended %v before its certificate", -late)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate expired at") {
		t.Errorf("the session ended with %v", err)
	}
}

// presented is false where the first certificate was over too early.
func presented(t *testing.T, life time.Duration) bool {
	t.Helper()
	h, _ := changedHub(t, func(*acceptor.ServerConfig) {})
	first := issue(t, h.cert, "test", time.Now().Add(life))
	next := issue(t, h.cert, "test", time.Now().Add(2*life))
	d, _ := rotating(t, h, first)
	link := firstLink(h, first)
	if link == nil {
		return false
	}
	s, failed := link.Open(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
	again, err1 := d.Present(t.Context(), &first)
	newer, err2 := d.Present(t.Context(), &next)
	if time.Now().After(first.Leaf.NotAfter) {
		return false
	}
	if failed != nil {
		t.Fatal(failed)
	}
	if !again || err1 != nil {
		t.Errorf("what the handshake has shown: %v, %v", again, err1)
	}
	if !newer || err2 != nil {
		t.Fatalf("%v, %v", newer, err2)
	}
	outlives(t, link, s, first, next, func() {})
	return true
}

func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"P-256": p256, "P-384": p384, "RSA": long, "Ed25519": edwards}
}

func TestPresent(t *testing.T) {
	t.Run("N7: a link outlives its first certificate when a newer one was presented, and ends with that", func(t *testing.T) {
		inTime(t, func(life time.Duration) bool { return presented(t, life) })
	})
	h, _ := changedHub(t, func(c *acceptor.ServerConfig) {
		c.Cluster = func(cs tls.ConnectionState) (string, error) {
			if name := cs.PeerCertificates[0].Subject.CommonName; name != "revoked" {
				return name, nil
			}
			return "", errors.New("cluster was revoked")
		}
	})
	ca := h.cert
	until := time.Now().Add(time.Hour)
	d, _ := rotating(t, h, issue(t, ca, "test", until))
	for name, key := range keys(t) {
		t.Run("N7: a certificate with a key of "+name+" is taken", func(t *testing.T) {
			next := issueFor(t, ca, "test", until, key)
			if done, err := d.Present(t.Context(), &next); !done || err != nil {
				t.Errorf("%v, %v", done, err)
			}
		})
	}
	t.Run("N7: a certificate of another cluster, or one that a handshake would refuse, is refused", func(t *testing.T) {
		for cluster, says := range map[string]string{"edge-2": "it is of the cluster edge-2, and this link of test", "revoked": "cluster was revoked"} {
			next := issue(t, ca, cluster, until)
			if done, err := d.Present(t.Context(), &next); done || status.Code(errors.Unwrap(err)) != codes.PermissionDenied || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, %v", cluster, done, err)
			}
		}
	})
	t.Run("N7: a certificate without its key is refused", func(t *testing.T) {
		stolen, other := issue(t, ca, "test", until), issue(t, ca, "test", until)
		stolen.PrivateKey = other.PrivateKey
		if done, err := d.Present(t.Context(), &stolen); done || err == nil || !strings.Contains(err.Error(), "signature is not of the certificate's key") {
			t.Errorf("%v, %v", done, err)
		}
	})
	t.Run("N7: what was signed for one connection is worth nothing on another", func(t *testing.T) {
		next := issue(t, ca, "test", until)
		request := &culvertv1.PresentRequest{CertificateChain: next.Certificate, Signature: signedElsewhere(t, h.address, h.pool, next)}
		_, err := culvertv1.NewEnrolmentServiceClient(d.Conn()).Present(t.Context(), request)
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "on this connection") {
			t.Errorf("%v", err)
		}
	})
	t.Run("N7: what is no chain is refused", func(t *testing.T) {
		client := culvertv1.NewEnrolmentServiceClient(d.Conn())
		for says, chain := range map[string][][]byte{"a chain of 0": nil, "a chain of 9": make([][]byte, 9), "certificate 1 of the chain": {[]byte("no")}} {
			_, err := client.Present(t.Context(), &culvertv1.PresentRequest{CertificateChain: chain})
			if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %s", err, says)
			}
		}
	})
	t.Run("N7: a connection without a live link takes no certificate", func(t *testing.T) {
		one := &hub{t: t, pool: h.pool, cert: issue(t, ca, "test", until), address: h.address}
		_, err := culvertv1.NewEnrolmentServiceClient(rawClient(t, one)).Present(t.Context(), &culvertv1.PresentRequest{})
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "live link") {
			t.Errorf("%v", err)
		}
	})
	t.Run("without a link nothing is presented", func(t *testing.T) {
		away := tunnel.NewDialer(tunnel.DialerConfig{Address: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
		if done, err := away.Present(t.Context(), &tls.Certificate{}); done || err != nil {
			t.Errorf("%v, %v", done, err)
		}
	})
}

// signedElsewhere returns the signature by which a certificate is presented on a
// connection of its own.
func signedElsewhere(t *testing.T, address string, roots *x509.CertPool, cert tls.Certificate) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost", NextProtos: []string{tunnel.Protocol}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	state := conn.ConnectionState()
	signature, err := tunnel.SignPresentation(&state, &cert)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}
