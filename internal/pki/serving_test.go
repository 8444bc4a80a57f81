package pki

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is an authority of an operator: a root, or one below it.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (i issuer) pem() []byte { return encodeCertificate(i.cert.Raw) }

func newIssuer(t *testing.T, name string, above *issuer, edit func(*x509.Certificate)) issuer {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if edit != nil {
		edit(template)
	}
	key := crypto.Signer(ecKey(t, elliptic.P256()))
	parent, parentKey := template, key
	if above != nil {
		parent, parentKey = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{cert, key}
}

// serve issues a server's certificate for names.
func (i issuer) serve(t *testing.T, edit func(*x509.Certificate), names ...string) (certPEM, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hub"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(50 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if edit != nil {
		edit(template)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	return encodeCertificate(der), encoded(t, key)
}

func join(texts ...[]byte) []byte { return bytes.Join(texts, nil) }

func TestServingSources(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	between := newIssuer(t, "between", &root, nil)
	certPEM, keyPEM := between.serve(t, nil, "hub.example.com")
	chain := join(certPEM, between.pem())
	base64Of := func(data []byte) []byte {
		text := base64.StdEncoding.EncodeToString(data)
		return []byte(text[:70] + "\n" + text[70:] + "\n")
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		write(t, path, data, 0o600)
		return path
	}
	secret := filepath.Join(dir, "secret")
	mkdir(t, secret)
	write(t, filepath.Join(secret, "tls.crt"), chain, 0o600)
	write(t, filepath.Join(secret, "tls.key"), keyPEM, 0o600)
	write(t, filepath.Join(secret, "ca.crt"), root.pem(), 0o600)
	for name, source := range map[string]Source{
		"P16,P5,V11: two PEM files":           {CertFile: file("c", chain), KeyFile: file("k", keyPEM), CAFile: file("ca", root.pem())},
		"P5: two files of base64 of PEM":      {CertFile: file("c64", base64Of(chain)), KeyFile: file("k64", base64Of(keyPEM)), CAFile: file("ca64", base64Of(root.pem()))},
		"P5: base64 of PEM as text":           {CertData: string(base64Of(chain)), KeyData: string(base64Of(keyPEM)), CAData: string(base64Of(root.pem()))},
		"P5: PEM as text":                     {CertData: string(chain), KeyData: string(keyPEM), CAData: string(root.pem())},
		"D5: one file, certificate first":     {CertFile: file("ck", join(chain, keyPEM)), CAFile: file("ca", root.pem())},
		"D5: one file, key first":             {CertFile: file("kc", join(keyPEM, chain)), CAFile: file("ca", root.pem())},
		"D5: one file, key in the middle":     {CertFile: file("ckc", join(certPEM, keyPEM, between.pem())), CAFile: file("ca", root.pem())},
		"D5: one text":                        {CertData: string(join(keyPEM, chain)), CAData: string(root.pem())},
		"P16,O10: folder of a mounted Secret": {Dir: secret},
	} {
		t.Run(name, func(t *testing.T) {
			source.Names = []string{"hub.example.com"}
			pair, err := LoadServing(source)
			if err != nil {
				t.Fatal(err)
			}
			ca := pair.CA()
			if len(ca) != 1 || !ca[0].Equal(root.cert) {
				t.Fatalf("%d certificates for clients to trust, want the root", len(ca))
			}
			roots, err := FixedRoots(encodeCertificate(ca[0].Raw))
			if err != nil {
				t.Fatal(err)
			}
			agents := newAuthority(t, RoleAgents)
			atServer, atClient := handshake(t, hub(pair, agents), agent(agentPair(t, agents, "edge-1", 0), roots, "hub.example.com"))
			wantThrough(t, name, atServer, atClient)
		})
	}
	for want, source := range map[string]Source{
		"no certificate given":                  {},
		"given more than once: want files":      {Dir: secret, CertFile: "x"},
		"the CA is given more than once":        {Dir: secret, CAFile: "x"},
		"x: a key file without a certificate":   {KeyFile: "x"},
		"a key without a certificate":           {KeyData: "x"},
		"tls name: ":                            {Dir: secret, Names: []string{"a b"}},
		"the given certificate: holds no":       {CertData: "x", KeyData: "y"},
		"the given key: holds no PEM":           {CertData: string(chain), KeyData: "y"},
		"no private key, the first PEM block":   {CertFile: filepath.Join(dir, "c")},
		"looks like DER or PKCS #12: convert":   {CertData: string(root.cert.Raw), KeyData: string(keyPEM)},
		"given CA: holds no certificate, the f": {CertData: string(chain), KeyData: string(keyPEM), CAData: string(keyPEM)},
	} {
		_, err := LoadServing(source)
		wantError(t, want, err, "load serving certificate: ", want)
	}
}

func TestServingIsJudgedAsClientsWill(t *testing.T) {
	root, foreign := newIssuer(t, "root", nil, nil), newIssuer(t, "foreign", nil, nil)
	between := newIssuer(t, "between", &root, nil)
	deeper := newIssuer(t, "deeper", &between, nil)
	over := newIssuer(t, "over", &root, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) })
	leaf := func(i issuer, edit func(*x509.Certificate), names ...string) [2][]byte {
		certPEM, keyPEM := i.serve(t, edit, names...)
		return [2][]byte{certPEM, keyPEM}
	}
	const name = "hub.example.com"
	good := leaf(deeper, nil, name)
	self := func(edit func(*x509.Certificate)) [2][]byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "*"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
		edit(template)
		key := ecKey(t, elliptic.P256())
		return [2][]byte{encodeCertificate(signedBySelf(t, template, key)), encoded(t, key)}
	}
	tests := []struct {
		name  string
		pair  [2][]byte
		above []byte
		ca    []byte
		want  []string // none: good
	}{
		{"good", good, join(deeper.pem(), between.pem()), root.pem(), nil},
		{"good with the root sent along", good, join(deeper.pem(), between.pem(), root.pem()), root.pem(), nil},
		{"good under an intermediate CA", good, deeper.pem(), between.pem(), nil},
		{"good without a CA", good, join(deeper.pem(), between.pem()), nil, nil},
		{"self-signed", self(func(*x509.Certificate) {}), nil, nil, nil},
		{
			"self-signed as openssl req -x509 does", self(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), nil, nil,
			[]string{"that of an authority (CA:true), which clients refuse", "basicConstraints CA:false"},
		},
		{"intermediate missing", good, deeper.pem(), root.pem(), []string{`the chain is not complete: "CN=deeper" is signed by "CN=between", which is neither in the file nor the given CA ("CN=root"): append`}},
		{"all intermediates missing", good, nil, root.pem(), []string{`the chain is not complete: "CN=hub" is signed by "CN=deeper"`}},
		{"gap", good, between.pem(), root.pem(), []string{`certificate 2 ("CN=between") has not signed certificate 1 ("CN=hub"), whose issuer is "CN=deeper": put the certificate of that issuer between them`}},
		{"out of order", good, join(between.pem(), deeper.pem()), root.pem(), []string{`the chain is out of order: certificate 1 ("CN=hub") is signed by certificate 3 ("CN=deeper"): put that one right after it`}},
		{"does not belong", good, join(deeper.pem(), between.pem(), foreign.pem()), root.pem(), []string{`certificate 4 ("CN=foreign") has not signed certificate 3 ("CN=between")`, "leave out what does not belong"}},
		{"other CA", good, join(deeper.pem(), between.pem(), root.pem()), foreign.pem(), []string{`the chain ends in "CN=root", which is not the given CA ("CN=foreign")`}},
		{"intermediate expired", leaf(over, nil, name), over.pem(), root.pem(), []string{`certificate 2 of the chain ("CN=over"): expired at `}},
		{"expired", leaf(root, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }, name), nil, root.pem(), []string{": expired at "}},
		{"not valid yet", leaf(root, func(c *x509.Certificate) { c.NotBefore = c.NotAfter }, name), nil, root.pem(), []string{": not valid before "}},
		{"key of another", [2][]byte{good[0], leaf(root, nil, name)[1]}, nil, root.pem(), []string{"tls.key is not the key of"}},
		{"for clients", leaf(root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, name), nil, root.pem(), []string{"it is for TLS clients (clientAuth): make it again with extended key usage serverAuth"}},
		{"other name", leaf(root, nil, "other.example.com"), nil, root.pem(), []string{`it is not for "hub.example.com" but for "other.example.com": make it again with these names, or configure the names it has`}},
		{"common name alone", leaf(root, func(c *x509.Certificate) { c.Subject.CommonName = name }), nil, root.pem(), []string{`it has no subject alternative name, and clients do not read the common name "hub.example.com": make it again with subjectAltName for "hub.example.com"`}},
		{"wildcard", leaf(root, nil, "*.example.com"), nil, root.pem(), nil},
		{"several at once", leaf(root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "a"), nil, foreign.pem(), []string{"it is for TLS clients", "; it is not for ", "; the chain is not complete"}},
	}
	for _, test := range tests {
		t.Run("P5: "+test.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "tls.crt"), join(test.pair[0], test.above), 0o600)
			write(t, filepath.Join(dir, "tls.key"), test.pair[1], 0o600)
			if test.ca != nil {
				write(t, filepath.Join(dir, "ca.crt"), test.ca, 0o600)
			}
			_, err := LoadServing(Source{Dir: dir, Names: []string{name}}, new(logLines).option())
			if test.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, test.name, err, append(test.want, "load serving certificate: "+dir)...)
		})
	}
}

func TestServingNamesOfAllKinds(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	certPEM, keyPEM := root.serve(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} },
		append(ServiceNames("hub", "culvert"), "*.example.com")...)
	source := Source{CertData: string(certPEM), KeyData: string(keyPEM)}
	source.Names = []string{"hub", "hub.culvert", "hub.culvert.svc", "hub.culvert.svc.cluster.local", "10.0.0.1", "*.example.com", "a.example.com"}
	if _, err := LoadServing(source, new(logLines).option()); err != nil {
		t.Error(err)
	}
	source.Names = []string{"10.0.0.2", "*.hub", "a.b.example.com", "example.com"}
	_, err := LoadServing(source)
	wantError(t, "others", err, `it is not for "*.hub", "a.b.example.com", "example.com", 10.0.0.2 but for "hub", "hub.culvert"`)
}

func TestServingWarnsOfAChainThatMayBeIncomplete(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	between := newIssuer(t, "between", &root, nil)
	certPEM, keyPEM := between.serve(t, nil, "hub.example.com")
	log := new(logLines)
	pair, err := LoadServing(Source{CertData: string(certPEM), KeyData: string(keyPEM)}, log.option(), WithName("front"))
	if err != nil {
		t.Fatal(err)
	}
	status := pair.Status()
	if len(status.Warnings) != 1 || !strings.Contains(status.Warnings[0], `is signed by "CN=between", and this system does not trust that`) || status.Name != "front" {
		t.Errorf("status %+v", status)
	}
	if pair.CA() != nil {
		t.Error("an issuer that is not there is given to clients")
	}
	log.want(t, 1, "level=WARN")
	pair, err = LoadServing(Source{CertData: string(join(certPEM, between.pem(), root.pem())), KeyData: string(keyPEM)})
	if err != nil {
		t.Fatal(err)
	}
	if ca := pair.CA(); len(ca) != 1 || !ca[0].Equal(root.cert) || pair.Status().Warnings != nil {
		t.Errorf("the root of the chain is not given to clients: %v, %v", ca, pair.Status())
	}
}

func TestServingFallsBackUntilTheFilesAppear(t *testing.T) {
	t.Run("O8: the hub starts with its own certificate and changes to the configured one when that appears", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			serving, log := newAuthority(t, RoleServing), new(logLines)
			self := selfServe(t, serving, t.TempDir(), new(logLines), "hub.example.com")
			dir := filepath.Join(t.TempDir(), "secret")
			load := func() (*KeyPair, error) {
				return LoadServing(Source{Dir: dir, Names: []string{"hub.example.com"}}, WithFallback(self), log.option())
			}
			pair, err := load()
			if err != nil {
				t.Fatal(err)
			}
			if !pair.SelfIssued() || !pair.Leaf().Equal(self.Leaf()) || !pair.CA()[0].Equal(serving.Certificate()) {
				t.Error("the hub's own certificate is not in force")
			}
			if status := pair.Status(); !strings.Contains(status.Err, "no such file") || status.Failures != 1 {
				t.Errorf("it does not say so: %+v", status)
			}
			log.want(t, 1, "files are missing, something else is used until they appear")

			root := newIssuer(t, "root", nil, nil)
			certPEM, keyPEM := root.serve(t, nil, "other.example.com")
			if err := WriteKeyPair(dir, certPEM, keyPEM, root.pem()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkInterval)
			if !pair.SelfIssued() || !strings.Contains(pair.Status().Err, "it is not for") {
				t.Error("a certificate for another name took the place of the hub's own")
			}
			certPEM, keyPEM = root.serve(t, nil, "hub.example.com")
			if err := WriteKeyPair(dir, certPEM, keyPEM, root.pem()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkInterval)
			if pair.SelfIssued() || !pair.CA()[0].Equal(root.cert) || pair.Status().Err != "" {
				t.Errorf("the configured certificate is not in force: %+v", pair.Status())
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkInterval)
			if pair.SelfIssued() {
				t.Error("files that went away put the hub's own certificate back")
			}
			mkdir(t, dir)
			write(t, filepath.Join(dir, "tls.crt"), nil, 0o600)
			write(t, filepath.Join(dir, "tls.key"), nil, 0o600)
			_, err = load()
			wantError(t, "files that are there and bad", err, "tls.crt: empty")
		})
	})
}

func TestExpiredPairSaysWhich(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	certPEM, keyPEM := root.serve(t, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }, "hub")
	_, err := LoadPair(Source{CertData: string(certPEM), KeyData: string(keyPEM)})
	expired, ok := errors.AsType[*ExpiredError](err)
	if !ok || expired.Certificate.Subject.CommonName != "hub" {
		t.Errorf("%v has no certificate", err)
	}
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	server := func(v Versions) *tls.Config {
		config := &tls.Config{GetCertificate: w.pair.GetCertificate}
		if err := v.Apply(config); err != nil {
			t.Fatal(err)
		}
		return config
	}
	client := func(version uint16, suites ...uint16) *tls.Config {
		return &tls.Config{RootCAs: w.serving.Pool(), ServerName: "hub.example.com", MinVersion: tls.VersionTLS12, MaxVersion: version, CipherSuites: suites}
	}
	const chosen = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
	t.Run("D6: TLS 1.3 by default", func(t *testing.T) {
		atServer, _ := handshake(t, server(Versions{}), client(tls.VersionTLS12))
		wantError(t, "TLS 1.2", atServer.err, "unsupported versions")
		atServer, atClient := handshake(t, server(Versions{}), client(tls.VersionTLS13))
		wantThrough(t, "TLS 1.3", atServer, atClient)
	})
	t.Run("D6: TLS 1.2 with forward secrecy and the cipher suites of a setting", func(t *testing.T) {
		atServer, atClient := handshake(t, server(Versions{Min: "1.2", CipherSuites: []string{chosen}}), client(tls.VersionTLS12))
		if atServer.err != nil || atClient.err != nil || tls.CipherSuiteName(atServer.state.CipherSuite) != chosen {
			t.Errorf("%v, %v, %s", atServer.err, atClient.err, tls.CipherSuiteName(atServer.state.CipherSuite))
		}
		atServer, _ = handshake(t, server(Versions{Min: "1.2"}), client(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256))
		wantError(t, "no forward secrecy", atServer.err, "no cipher suite supported")
	})
	for want, v := range map[string]Versions{
		`lowest TLS version: "1.1", want "1.2" or "1.3"`:                              {Min: "1.1"},
		`cipher suite: "TLS_RSA_WITH_AES_128_GCM_SHA256" is not one of TLS_ECDHE_`:    {Min: "1.2", CipherSuites: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256"}},
		"cipher suites: they are those of TLS 1.2, and the lowest TLS version is 1.3": {CipherSuites: []string{chosen}},
	} {
		wantError(t, want, v.Apply(&tls.Config{}), want)
	}
}
