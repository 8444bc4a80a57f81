package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const trustDomain = "culvert.local"

// childFolder makes a process of this test binary load or make an authority
// there, print its certificate and end.
const childFolder = "CULVERT_TEST_AUTHORITY_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		os.Exit(authorityChild(dir))
	}
	goleak.VerifyTestMain(m)
}

func newAuthority(t *testing.T, role string) *Authority {
	t.Helper()
	a, err := LoadOrCreate(t.TempDir(), role)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// signed completes a template with the authority's signature, for certificates
// that an Authority would not issue.
func signed(t *testing.T, a *Authority, template *x509.Certificate) tls.Certificate {
	t.Helper()
	return signedBy(t, a.now().active, a.now().key, template)
}

func signedBy(t *testing.T, parent *x509.Certificate, parentKey crypto.Signer, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return pairOf(t, encodeCertificate(der), key)
}

func signedBySelf(t *testing.T, template *x509.Certificate, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// fixedPair stays the same.
func fixedPair(cert *tls.Certificate) *KeyPair {
	return &KeyPair{from: &fixed{pairValue{cert: cert}}}
}

type fixed struct{ value pairValue }

func (f *fixed) get() *pairValue        { return &f.value }
func (f *fixed) status(s Status) Status { return s }
func (f *fixed) reload() error          { return nil }

func pairOf(t *testing.T, certPEM []byte, key crypto.Signer) tls.Certificate {
	t.Helper()
	pair, err := parsePair("cert", certPEM, "key", encoded(t, key), nil)
	if err != nil {
		t.Fatal(err)
	}
	return *pair
}

func encoded(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	keyPEM, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return keyPEM
}

// agentPEM issues a certificate for a new key.
func agentPEM(t *testing.T, a *Authority, cluster string, lifetime time.Duration) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err = a.IssueAgent(key.Public(), trustDomain, cluster, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM, encoded(t, key)
}

func agentPair(t *testing.T, a *Authority, cluster string, lifetime time.Duration) tls.Certificate {
	t.Helper()
	certPEM, keyPEM := agentPEM(t, a, cluster, lifetime)
	pair, err := parsePair("cert", certPEM, "key", keyPEM, nil)
	if err != nil {
		t.Fatal(err)
	}
	return *pair
}

func servingPair(t *testing.T, a *Authority, names ...string) tls.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := a.IssueServing(key.Public(), names, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pairOf(t, certPEM, key)
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func wantError(t *testing.T, reason string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: got no error", reason)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error does not say %q:\n%v", reason, part, err)
		}
	}
	for _, secret := range []string{"-----BEGIN", "MII"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: error holds what was in a file:\n%v", reason, err)
		}
	}
}

// logLines collects what is logged.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) option() Option { return WithLogger(slog.New(slog.NewTextHandler(l, nil))) }

// with returns the lines that contain part.
func (l *logLines) with(part string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

func (l *logLines) want(t *testing.T, count int, part string) {
	t.Helper()
	if got := l.with(part); len(got) != count {
		t.Errorf("log has %d lines with %q, want %d:\n%s", len(got), part, count, fmt.Sprint(l.with("")))
	}
}

func bigOf(bits uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), bits-1) }
