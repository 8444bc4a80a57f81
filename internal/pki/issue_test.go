package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestIssueAgent(t *testing.T) {
	a := newAuthority(t, RoleAgents)
	leaf := agentPair(t, a, "edge-1", 0).Leaf
	if got := leaf.URIs; len(got) != 1 || got[0].String() != "spiffe://culvert.local/cluster/edge-1" || got[0].String() != AgentID(trustDomain, "edge-1") {
		t.Errorf("URIs %v", got)
	}
	if got := leaf.ExtKeyUsage; !slices.Equal(got, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("extended key usage %v, want clientAuth alone", got)
	}
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("CA %v, key usage %v", leaf.IsCA, leaf.KeyUsage)
	}
	if leaf.SerialNumber.BitLen() != 128 || leaf.SerialNumber.Sign() <= 0 {
		t.Errorf("serial number %x is guessable", leaf.SerialNumber)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
		t.Error("an agent's certificate has names besides its URI")
	}
	if life := time.Until(leaf.NotAfter); life > DefaultLifetime || life < DefaultLifetime-time.Minute {
		t.Errorf("valid for %s, want %s", life, DefaultLifetime)
	}
}

func TestIssueKeepsToTheLifeOfTheAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, RoleAgents)
		leaf := agentPair(t, a, "edge-1", 2*authorityLifetime).Leaf
		if !leaf.NotAfter.Equal(a.Certificate().NotAfter) || leaf.NotBefore.Before(a.Certificate().NotBefore) {
			t.Errorf("valid %s to %s outside of its authority", leaf.NotBefore, leaf.NotAfter)
		}
		short := agentPair(t, a, "edge-1", time.Minute).Leaf
		if due := time.Until(RenewAt(short)); due < 34*time.Second || due > 42*time.Second {
			t.Errorf("a certificate for a minute is to be replaced after %s, want about 40 s", due)
		}
		time.Sleep(authorityLifetime + time.Second)
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.IssueAgent(key.Public(), trustDomain, "edge-1", time.Hour)
		wantError(t, "the authority is over", err, "issue agent certificate: the agents CA: expired at 20")
	})
}

func TestIssueRefuses(t *testing.T) {
	agents, serving := newAuthority(t, RoleAgents), newAuthority(t, RoleServing)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	pub := key.Public()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asAgent := func(a *Authority, pub crypto.PublicKey, domain, cluster string, life time.Duration) func() ([]byte, error) {
		return func() ([]byte, error) { return a.IssueAgent(pub, domain, cluster, life) }
	}
	asServer := func(a *Authority, names ...string) func() ([]byte, error) {
		return func() ([]byte, error) { return a.IssueServing(pub, names, 0) }
	}
	long := strings.Repeat("a", 64)
	tests := []struct {
		name  string
		issue func() ([]byte, error)
		want  string
	}{
		{"cluster empty", asAgent(agents, pub, trustDomain, "", 0), "issue agent certificate: cluster: empty"},
		{"cluster upper case", asAgent(agents, pub, trustDomain, "Edge", 0), `"E"`},
		{"cluster with dot", asAgent(agents, pub, trustDomain, "a.b", 0), `"."`},
		{"cluster with slash", asAgent(agents, pub, trustDomain, "a/b", 0), `"/"`},
		{"cluster too long", asAgent(agents, pub, trustDomain, long, 0), "64 characters, at most 63"},
		{"cluster ends in hyphen", asAgent(agents, pub, trustDomain, "a-", 0), "starts or ends with '-'"},
		{"trust domain empty", asAgent(agents, pub, "", "a", 0), "trust domain: empty"},
		{"trust domain upper case", asAgent(agents, pub, "Example.com", "a", 0), `trust domain: "Example.com" is not a DNS name`},
		{"trust domain with port", asAgent(agents, pub, "example.com:1", "a", 0), "is not a DNS name"},
		{"trust domain with root dot", asAgent(agents, pub, "example.com.", "a", 0), "is not a DNS name"},
		{"trust domain with long label", asAgent(agents, pub, long, "a", 0), "is not a DNS name"},
		{"trust domain too long", asAgent(agents, pub, strings.Repeat("a.", 127)+"a", "a", 0), "255 characters, at most 253"},
		{"trust domain is an address", asAgent(agents, pub, "10.0.0.1", "a", 0), "ends in a number"},
		{"lifetime negative", asAgent(agents, pub, trustDomain, "a", -time.Hour), "lifetime: -1h0m0s"},
		{"lifetime under a second", asAgent(agents, pub, trustDomain, "a", time.Millisecond), "want at least 1s"},
		{"key too weak", asAgent(agents, weakRSA(t), trustDomain, "a", 0), "public key: RSA of 1024 bits"},
		{"curve not in TLS 1.3", asAgent(agents, p224.Public(), trustDomain, "a", 0), "P-224"},
		{"no key", asAgent(agents, nil, trustDomain, "a", 0), "public key: key of type <nil>"},
		{"RSA of nothing", asAgent(agents, &rsa.PublicKey{}, trustDomain, "a", 0), "without a modulus"},
		{"ECDSA of nothing", asAgent(agents, &ecdsa.PublicKey{}, trustDomain, "a", 0), "without a curve"},
		{"agent from the serving CA", asAgent(serving, pub, trustDomain, "a", 0), "the serving CA does not sign for agents"},
		{"server from the agents CA", asServer(agents, "localhost"), "the agents CA does not sign for servers"},
		{"server without name", asServer(serving), "issue serving certificate: tls name: none given"},
		{"server with empty name", asServer(serving, "localhost", ""), "tls name: empty"},
		{"server with port", asServer(serving, "hub:8443"), `"hub:8443" is not a DNS name`},
		{"server with URL", asServer(serving, "https://hub"), "is not a DNS name"},
		{"server with zone", asServer(serving, "fe80::1%eth0"), "has a zone"},
		{"server with inner wildcard", asServer(serving, "a.*.example.com"), "is not a DNS name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.issue()
			wantError(t, test.name, err, test.want)
		})
	}
}

// weakRSA is a key that the Go library does not make any more.
func weakRSA(t *testing.T) crypto.PublicKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub := key.PublicKey
	pub.N.Rsh(pub.N, 1024)
	return &pub
}

func TestIssueServing(t *testing.T) {
	a := newAuthority(t, RoleServing)
	leaf := servingPair(t, a, "localhost", "Hub.Example.com", "*.example.com", "127.0.0.1", "::1", "localhost", "::ffff:127.0.0.1").Leaf
	if want := []string{"*.example.com", "hub.example.com", "localhost"}; !slices.Equal(leaf.DNSNames, want) {
		t.Errorf("DNS names %v, want %v", leaf.DNSNames, want)
	}
	if len(leaf.IPAddresses) != 2 || leaf.IPAddresses[0].String() != "127.0.0.1" || leaf.IPAddresses[1].String() != "::1" {
		t.Errorf("IP addresses %v", leaf.IPAddresses)
	}
	if got := leaf.ExtKeyUsage; !slices.Equal(got, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("extended key usage %v, want serverAuth alone", got)
	}
}

func TestWriteKeyPair(t *testing.T) {
	a := newAuthority(t, RoleAgents)
	certPEM, keyPEM := agentPEM(t, a, "edge-1", 0)
	dir := filepath.Join(t.TempDir(), "out")
	if err := WriteKeyPair(dir, certPEM, keyPEM, a.PEM()); err != nil {
		t.Fatal(err)
	}
	wantModes(t, dir, map[string]fs.FileMode{".": fs.ModeDir | 0o700, "tls.crt": 0o644, "tls.key": 0o600, "ca.crt": 0o644})
	pair, err := LoadKeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if cluster, err := ClusterOf(pair.Leaf(), trustDomain); err != nil || cluster != "edge-1" {
		t.Errorf("cluster %q, %v", cluster, err)
	}
	otherCert, _ := agentPEM(t, a, "edge-2", 0)
	err = WriteKeyPair(dir, otherCert, keyPEM, a.PEM())
	wantError(t, "halves of two pairs", err, "write key pair: tls.key is not the key of tls.crt")
	err = WriteKeyPair(dir, certPEM, keyPEM, nil)
	wantError(t, "no CA", err, "write key pair: ca.crt: empty")
	if now, err := os.ReadFile(filepath.Join(dir, "tls.crt")); err != nil || string(now) != string(certPEM) {
		t.Errorf("a refused pair changed the files: %v", err)
	}
}

func TestKeysOfAllKindsAreRead(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, keyPEM := range map[string][]byte{
		"PKCS #8 RSA":     encoded(t, rsaKey),
		"PKCS #8 Ed25519": encoded(t, edKey),
		"PKCS #8 ECDSA":   encoded(t, ecKey),
		"PKCS #1":         block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)),
		"SEC 1":           append(block("EC PARAMETERS", nil), block("EC PRIVATE KEY", ecDER)...),
	} {
		if _, err := parseKey(keyPEM, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, keyPEM := range map[string][]byte{
		"is encrypted":                block("ENCRYPTED PRIVATE KEY", nil),
		"holds no private key":        block("PUBLIC KEY", nil),
		"more than one private key":   append(encoded(t, ecKey), encoded(t, edKey)...),
		"holds no PEM block":          []byte("secret"),
		"private key: ":               block("PRIVATE KEY", []byte("secret")),
		"half-written or damaged":     encoded(t, ecKey)[:100],
		"1 of 2 PEM blocks are whole": append(encoded(t, ecKey), []byte("-----BEGIN CERTIFICATE-----\nAAAA")...),
	} {
		_, err := parseKey(keyPEM, nil)
		wantError(t, want, err, want)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("error holds a part of the file: %v", err)
		}
	}
}
