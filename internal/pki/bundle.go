package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// Bundle is a set of trusted certificates in a file that is followed. It is safe
// for concurrent use and needs no closing; the zero value is not usable.
type Bundle struct {
	f *followed[*x509.CertPool]
}

// LoadBundle reads a file of one or more PEM certificates and follows it from
// then on: see the package documentation. Every block has to be whole; a
// certificate that is expired is kept and fails where a chain ends in it.
func LoadBundle(file string, opts ...Option) (*Bundle, error) {
	if file == "" {
		return nil, errors.New("load CA bundle: no file given")
	}
	f, err := follow("CA bundle", newOptions(opts).log, parseBundle, file)
	if err != nil {
		return nil, fmt.Errorf("load CA bundle: %w", err)
	}
	return &Bundle{f: f}, nil
}

func parseBundle(files []input) (*x509.CertPool, error) {
	certs, err := parseCertificates(files[0].data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].path, err)
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool, nil
}

// Pool returns the certificates in force. It must not be changed, and should be
// asked for anew at every handshake.
func (b *Bundle) Pool() *x509.CertPool { return b.f.get() }
