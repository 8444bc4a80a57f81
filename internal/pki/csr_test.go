package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func request(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRequestsOfAllKindsOfKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t, RoleAgents)
	for name, key := range map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "Ed25519": ed, "RSA": rsaKey,
	} {
		der, err := NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseRequest(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if parsed.Ignored != nil {
			t.Errorf("%s: an agent's own request has something to ignore: %q", name, parsed.Ignored)
		}
		issued, err := a.SignAgent(parsed.Key, trustDomain, "edge-1", 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantAgent(t, name, a, pairOf(t, issued.PEM, key), "edge-1")
		if pin, err := PinKey(key.Public()); err != nil || pin != parsed.Pin || pin != Pin(issued.Certificate) {
			t.Errorf("%s: pin %s, want %s: %v", name, parsed.Pin, pin, err)
		}
	}
}

func TestRequestsAreRefused(t *testing.T) {
	good := request(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{})
	changed := bytes.Clone(good)
	changed[len(changed)-3] ^= 1
	// The key of another in a request that was signed with one's own.
	stolen := bytes.Clone(good)
	other := ecKey(t, elliptic.P256())
	mine, theirs := spkiOf(t, good), spkiOf(t, request(t, other, &x509.CertificateRequest{}))
	stolen = bytes.Replace(stolen, mine, theirs, 1)
	for _, test := range []struct {
		name string
		der  []byte
		want string
	}{
		{"empty", nil, "certificate request: empty"},
		{"too long", make([]byte, MaxRequest+1), "16385 bytes, at most 16384"},
		{"text", []byte("give me a certificate"), "malformed"},
		{"cut off", good[:len(good)-1], "malformed"},
		{"with more behind", append(bytes.Clone(good), 0), "malformed"},
		{"signature changed", changed, "not signed by the key in it"},
		{"another's key", stolen, "not signed by the key in it"},
		{"P-521", request(t, ecKey(t, elliptic.P521()), &x509.CertificateRequest{}), "public key: ECDSA on P-521, want"},
		{"P-224", request(t, ecKey(t, elliptic.P224()), &x509.CertificateRequest{}), "public key: ECDSA on P-224, want"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseRequest(test.der)
			wantError(t, test.name, err, "certificate request: ", test.want)
		})
	}
	for want, pub := range map[string]crypto.PublicKey{
		"RSA of 1024 bits":      weakRSA(t),
		"RSA of 16384 bits":     &rsa.PublicKey{N: bigOf(16384), E: 65537},
		"RSA without a modulus": &rsa.PublicKey{},
		"without a curve":       &ecdsa.PublicKey{},
		"of type string":        "key",
	} {
		wantError(t, want, checkRequestKey(pub), "public key: ", want)
	}
	if _, err := NewRequest(ecKey(t, elliptic.P521())); err == nil {
		t.Error("a request was made that the hub refuses")
	}
}

func spkiOf(t *testing.T, der []byte) []byte {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr.RawSubjectPublicKeyInfo
}

func TestOfARequestTheKeyAloneIsUsed(t *testing.T) {
	caTrue, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	key := ecKey(t, elliptic.P256())
	der := request(t, key, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "edge-2", Organization: []string{"system:masters"}},
		URIs:           []*url.URL{agentURL(trustDomain, "edge-2")},
		DNSNames:       []string{"hub.example.com", "\n" + strings.Repeat("x", 500)},
		IPAddresses:    []net.IP{net.IPv4(10, 0, 0, 1)},
		EmailAddresses: []string{"root@example.com"},
		ExtraExtensions: []pkix.Extension{
			{Id: basicConstraints(), Critical: true, Value: caTrue},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0}},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{1}},
		},
	})
	parsed, err := ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`subject "CN=edge-2,O=system:masters"`,
		`URI name "spiffe://culvert.local/cluster/edge-2"`,
		`DNS name "hub.example.com"`,
		`DNS name "\n` + strings.Repeat("x", 127) + `"...`,
		`IP address 10.0.0.1`,
		`email address "root@example.com"`,
		`basic constraints (CA:true)`,
		`extension extended key usage`,
		`extension "1.3.6.1.4.1.99999.1"`,
	}
	if !slices.Equal(parsed.Ignored, want) {
		t.Errorf("ignored\n%q, want\n%q", parsed.Ignored, want)
	}

	a := newAuthority(t, RoleAgents)
	issued, err := a.SignAgent(parsed.Key, trustDomain, "edge-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	cert := issued.Certificate
	if cluster, err := ClusterOf(cert, trustDomain); err != nil || cluster != "edge-1" {
		t.Errorf("cluster %q, want the hub's choice: %v", cluster, err)
	}
	if cert.IsCA || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 || len(cert.URIs) != 1 ||
		cert.Subject.CommonName != "edge-1" || cert.Subject.Organization[0] != organization || len(cert.ExtKeyUsage) != 1 {
		t.Errorf("something of the request is in the certificate: %+v", cert)
	}
}

func TestWhatIsIgnoredHasABound(t *testing.T) {
	names := slices.Repeat([]string{"a.example.com"}, 200)
	parsed, err := ParseRequest(request(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{DNSNames: names}))
	if err != nil || len(parsed.Ignored) != maxIgnored {
		t.Errorf("%d ignored, want %d: %v", len(parsed.Ignored), maxIgnored, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, ecKey(f, elliptic.P256()), &x509.CertificateRequest{}))
	f.Add(request(f, ecKey(f, elliptic.P384()), &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"b"},
		ExtraExtensions: []pkix.Extension{{Id: basicConstraints(), Value: []byte{0x30, 0}}},
	}))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		parsed, err := ParseRequest(der)
		if err != nil {
			return
		}
		if checkRequestKey(parsed.Key) != nil || len(parsed.Ignored) > maxIgnored || parsed.Pin == "" {
			t.Errorf("accepted %+v", parsed)
		}
		for _, line := range parsed.Ignored {
			if len(line) > 1000 || strings.ContainsAny(line, "\n\r\x1b") {
				t.Errorf("line for a log: %q", line)
			}
		}
	})
}
