package pki

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"
)

func TestSelector(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	load := func(names ...string) *KeyPair {
		certPEM, keyPEM := root.serve(t, nil, names...)
		pair, err := LoadServing(Source{CertData: string(certPEM), KeyData: string(keyPEM), CAData: string(root.pem())})
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	first, kube, wild := load("hub.example.com"), load("kube.example.com", "Kube.Other.Example"), load("*.example.com", "*.kube.example.com")
	again := load("kube.example.com")
	s, err := NewSelector(first, wild, kube, again)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{GetCertificate: s.GetCertificate}
	for name, want := range map[string]*KeyPair{
		"hub.example.com":     first,
		"kube.example.com":    kube, // exact before wildcard, the first of two
		"KUBE.example.COM":    kube,
		"kube.other.example":  kube,
		"a.example.com":       wild,
		"a.kube.example.com":  wild,
		"a.b.example.com":     first, // a wildcard is for one label
		"example.com":         first,
		"unknown.example.org": first,
		"":                    first, // as for an address
	} {
		t.Run("D16: the certificate for name "+name, func(t *testing.T) {
			got := s.For(&tls.ClientHelloInfo{ServerName: name})
			if got != want {
				t.Fatalf("certificate for %v, want for %v", got.Leaf().DNSNames, want.Leaf().DNSNames)
			}
			client := &tls.Config{ServerName: name, InsecureSkipVerify: true}
			atServer, atClient := handshake(t, config, client)
			wantThrough(t, name, atServer, atClient)
			if !atClient.state.PeerCertificates[0].Equal(want.Leaf()) {
				t.Errorf("the client got the certificate for %v", atClient.state.PeerCertificates[0].DNSNames)
			}
		})
	}
	if s.For(nil) != first {
		t.Error("without a hello the default is not the first")
	}
	withCA, err := s.GetCertificateWithCA(&tls.ClientHelloInfo{ServerName: "kube.example.com"})
	if err != nil || len(withCA.Certificate) != 2 || len(kube.get().Certificate) != 1 {
		t.Errorf("%d certificates with the CA, %d without: %v", len(withCA.Certificate), len(kube.get().Certificate), err)
	}
	for _, pairs := range [][]*KeyPair{nil, {first, nil}} {
		if _, err := NewSelector(pairs...); err == nil {
			t.Errorf("a selector of %v", pairs)
		}
	}
}

func TestSelectorFollowsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, dir := newIssuer(t, "root", nil, nil), t.TempDir()
		put := func(names ...string) {
			certPEM, keyPEM := root.serve(t, nil, names...)
			if err := WriteKeyPair(dir, certPEM, keyPEM, root.pem()); err != nil {
				t.Fatal(err)
			}
		}
		put("a.example.com")
		second, err := LoadServing(Source{Dir: dir}, new(logLines).option())
		if err != nil {
			t.Fatal(err)
		}
		first := selfServe(t, newAuthority(t, RoleServing), t.TempDir(), new(logLines), "hub")
		s, err := NewSelector(first, second)
		if err != nil {
			t.Fatal(err)
		}
		put("b.example.com")
		time.Sleep(checkInterval)
		if s.For(&tls.ClientHelloInfo{ServerName: "b.example.com"}) != second || s.For(&tls.ClientHelloInfo{ServerName: "a.example.com"}) != first {
			t.Error("names of the certificate before are in use")
		}
	})
}

func TestPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		serving := authorityIn(t, dir, RoleServing)
		pair := selfServe(t, serving, dir, new(logLines), "hub.example.com", "127.0.0.1")
		connect := func(pair *KeyPair, name string, pins ...string) error {
			t.Helper()
			server := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: pair.GetCertificateWithCA}
			_, atClient := handshake(t, server, &tls.Config{ServerName: name, InsecureSkipVerify: true, VerifyConnection: VerifyPinned(pins, name)})
			return atClient.err
		}
		pin := Pin(serving.Certificate())
		for _, name := range []string{"hub.example.com", "127.0.0.1"} {
			if err := connect(pair, name, "other", pin); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantError(t, "other name", connect(pair, "other.example.com", pin), `server certificate: it is not for "other.example.com"`)
		wantError(t, "other pin", connect(pair, "hub.example.com", Pin(pair.Leaf())), "none of the 2 certificates that the server sent is of the authority that the join token names")
		wantError(t, "no pin", connect(pair, "hub.example.com"), "no pin to check it against")
		wantError(t, "no name", VerifyPinned([]string{pin}, "")(tls.ConnectionState{}), "no server name")
		wantError(t, "no certificate", VerifyPinned([]string{pin}, "a")(tls.ConnectionState{}), "none was sent")

		// Who sends the right authority along has no certificate of it.
		other := newAuthority(t, RoleServing)
		fake := servingPair(t, other, "hub.example.com")
		fake.Certificate = append(fake.Certificate, other.Certificate().Raw, serving.Certificate().Raw)
		wantError(t, "the pinned authority beside a foreign chain", connect(fixedPair(&fake), "hub.example.com", pin), "signed by a CA that is not trusted here")

		rotate(t, serving)
		rotate(t, serving)
		for reason, pin := range map[string]string{"a token from before two rotations": pin, "a new token": Pin(serving.Certificate())} {
			if err := connect(pair, "hub.example.com", pin); err != nil {
				t.Errorf("%s: %v", reason, err)
			}
		}
	})
}

// The texts are those of openssl x509 -fingerprint -sha256 -pubkey and openssl
// pkey -pubin -outform DER | openssl sha256 -binary | basenc --base64url.
func TestFingerprints(t *testing.T) {
	certs, err := parseCertificates(testdata(t, "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Fingerprint(certs[0]); got != wantFingerprint {
		t.Errorf("fingerprint %s, want %s", got, wantFingerprint)
	}
	if got := Pin(certs[0]); got != wantPin {
		t.Errorf("pin %s, want %s", got, wantPin)
	}
	if got, err := PinKey(certs[0].PublicKey); err != nil || got != wantPin {
		t.Errorf("pin %s, want %s: %v", got, wantPin, err)
	}
	if _, err := PinKey("key"); err == nil {
		t.Error("a pin of what is no key")
	}
}

func TestRoots(t *testing.T) {
	system, err := SystemRoots()
	if err != nil {
		t.Fatal(err)
	}
	if system.Pool() == nil {
		t.Error("no pool")
	}
	if _, err := FixedRoots([]byte("nothing")); err == nil {
		t.Error("roots of nothing")
	}
	w := newWorld(t)
	leaf := agentPair(t, w.agents, "edge-1", 0).Leaf
	_, err = VerifyAgent(system, trustDomain)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	wantError(t, "the system does not trust the hub's authority", err, "signed by a CA that is not trusted here")
}

const (
	wantFingerprint = "D8:ED:78:1C:47:F9:47:22:05:F6:A2:68:3A:1E:12:58:CE:66:B7:98:2E:11:46:B9:1B:D2:FC:38:6F:3F:27:27"
	wantPin         = "l6RupRUkJjwpxWiaWF9DUsAiWF5u90eunrl7UvxbC0c"
)
