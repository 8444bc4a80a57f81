package tunnel

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
)

// SignedElsewhere returns the signature by which a certificate is presented on a
// connection of its own.
func SignedElsewhere(t *testing.T, address string, roots *x509.CertPool, cert tls.Certificate) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost", NextProtos: []string{Protocol}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	state := conn.ConnectionState()
	text, err := presentation(&state, cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signPresentation(cert.PrivateKey, text)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}
