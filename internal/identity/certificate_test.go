package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// testCA signs certificates, and is the Roots of itself.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{t: t}
	ca.cert, ca.key = ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "users"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return ca
}

func (a *testCA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *testCA) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *testCA) client(name pkix.Name, usage x509.ExtKeyUsage, end time.Time) *tls.ConnectionState {
	a.t.Helper()
	cert, _ := a.sign(&x509.Certificate{Subject: name, ExtKeyUsage: []x509.ExtKeyUsage{usage}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end})
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
}

func TestClientCertificates(t *testing.T) {
	users, agents := newTestCA(t), newTestCA(t)
	chain := startChain(t, Config{ClientCA: users, TokenFile: writeTokenFile(t, "token,bob,1\n")})
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	alice := pkix.Name{CommonName: "alice", Organization: []string{"dev", "ops"}}
	good := users.client(alice, x509.ExtKeyUsageClientAuth, later)
	ask := func(state *tls.ConnectionState, authorization ...string) *http.Request {
		r := request(t.Context(), authorization...)
		r.TLS = state
		return r
	}
	t.Run("D16: a client certificate of the users' CA names its user and groups", func(t *testing.T) {
		u, err := chain.Authenticate(ask(good))
		if err != nil || u.GetName() != "alice" || !slices.Equal(u.GetGroups(), []string{"dev", "ops"}) {
			t.Errorf("%v, %v", u, err)
		}
		if err := VerifyClient(users)(*good); err != nil {
			t.Error(err)
		}
	})
	t.Run("D16: a token of the request goes before the connection's certificate", func(t *testing.T) {
		if u, err := chain.Authenticate(ask(good, "Bearer token")); err != nil || u.GetName() != "bob" {
			t.Errorf("%v, %v", u, err)
		}
		_, err := chain.Authenticate(ask(good, "Bearer wrong"))
		wantStatus(t, err, http.StatusUnauthorized)
	})
	t.Run("D16: without a certificate a token is needed", func(t *testing.T) {
		_, err := chain.Authenticate(ask(&tls.ConnectionState{}))
		wantStatus(t, err, http.StatusUnauthorized)
		if err := VerifyClient(users)(tls.ConnectionState{}); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		name, says string
		state      *tls.ConnectionState
	}{
		{"an agent's, of another CA", "unknown authority", agents.client(pkix.Name{CommonName: "edge-1"}, x509.ExtKeyUsageClientAuth, later)},
		{"a server's", "usage", users.client(alice, x509.ExtKeyUsageServerAuth, later)},
		{"an expired one", "expired", users.client(alice, x509.ExtKeyUsageClientAuth, before)},
		{"the CA itself", "authority", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{users.cert}}},
		{"one without a name", "common name", users.client(pkix.Name{Organization: []string{"dev"}}, x509.ExtKeyUsageClientAuth, later)},
		{"one of nobody", "nobody", users.client(pkix.Name{CommonName: "system:anonymous"}, x509.ExtKeyUsageClientAuth, later)},
	} {
		t.Run("N7: a client certificate that is not of the users' role is refused: "+c.name, func(t *testing.T) {
			u, err := chain.Authenticate(ask(c.state))
			if f := wantStatus(t, err, http.StatusUnauthorized); !strings.Contains(f.Error(), c.says) || u != nil {
				t.Errorf("got %v, %q, want %q", u, f, c.says)
			}
		})
	}
}
