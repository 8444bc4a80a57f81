package server_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
)

// users is a CA of callers' client certificates.
type users struct {
	t    *testing.T
	auth *pki.Authority
	ca   tls.Certificate
}

func newUsers(t *testing.T) *users {
	t.Helper()
	dir := t.TempDir()
	auth, err := pki.LoadOrCreate(dir, pki.RoleUsers)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "users-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := tls.X509KeyPair(auth.PEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &users{t, auth, ca}
}

// client returns a certificate that names a user.
func (u *users) client(name string) tls.Certificate {
	u.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		u.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, u.ca.Leaf, key.Public(), u.ca.PrivateKey)
	if err != nil {
		u.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// expired returns a certificate of the past that is signed by itself.
func expired(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), encodeKey(t, private)
}

// fetch gets a URL in clear text.
func fetch(t *testing.T, url string) string {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
