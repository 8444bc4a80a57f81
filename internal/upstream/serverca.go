package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/pki"
)

// serverVerifier verifies the API server by the CAs of a file, as they are at each
// handshake: the CA of a cluster may be replaced while the agent runs. It is nil
// where there is no such file, and client-go's own verification does.
type serverVerifier func(tls.ConnectionState) error

func newServerVerifier(cfg *rest.Config, server *url.URL) (serverVerifier, error) {
	if cfg.Insecure || cfg.CAFile == "" || len(cfg.CAData) > 0 {
		return nil, nil
	}
	bundle, err := pki.LoadBundle(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: ca: %w", err)
	}
	name := cfg.ServerName
	if name == "" {
		name = server.Hostname()
	}
	return func(state tls.ConnectionState) error { return verifyServer(bundle.Pool(), name, state) }, nil
}

// verifyServer does what crypto/tls does with RootCAs.
func verifyServer(roots *x509.CertPool, name string, state tls.ConnectionState) error {
	options := x509.VerifyOptions{Roots: roots, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// apply makes cfg verify with v.
func (v serverVerifier) apply(cfg *tls.Config) {
	if v == nil {
		return
	}
	cfg.InsecureSkipVerify = true // what it would verify, VerifyConnection does
	cfg.VerifyConnection = v
}
