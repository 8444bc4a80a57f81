package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// Bundle is a set of trusted certificates in a file that is followed. It is safe
// for concurrent use and needs no closing; the zero value is not usable.
type Bundle struct {
	f *followed[*bundle]
}

// bundle is what the file holds. It is immutable.
type bundle struct {
	certs []*x509.Certificate
	pool  *x509.CertPool
}

// LoadBundle reads a file of one or more PEM certificates, or the base64 of that,
// and follows it from then on: see the package documentation. Every block has to
// be whole; a certificate that is expired is kept and fails where a chain ends in
// it.
func LoadBundle(file string, opts ...Option) (*Bundle, error) {
	if file == "" {
		return nil, errors.New("load CA bundle: no file given")
	}
	f, err := follow(newOptions("CA bundle", opts), parseBundle, required(file)...)
	if err != nil {
		return nil, fmt.Errorf("load CA bundle: %w", err)
	}
	return &Bundle{f: f}, nil
}

func parseBundle(files []input) (*bundle, error) {
	certs, err := parseCertificates(files[0].data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].path, err)
	}
	return &bundle{certs, poolOf(certs)}, nil
}

// Pool returns the certificates in force. It must not be changed, and should be
// asked for anew at every handshake.
func (b *Bundle) Pool() *x509.CertPool { return b.f.get().pool }

// Certificates returns the certificates in force, in the order of the file. They
// must not be changed.
func (b *Bundle) Certificates() []*x509.Certificate { return slices.Clone(b.f.get().certs) }

// PEM returns the certificates in force, for a file. The caller owns it.
func (b *Bundle) PEM() []byte {
	var text []byte
	for _, cert := range b.f.get().certs {
		text = append(text, encodeCertificate(cert.Raw)...)
	}
	return text
}

// Status is as in [Watched].
func (b *Bundle) Status() Status {
	last := slices.MaxFunc(b.f.get().certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return b.f.status(statusOf(last))
}

// Reload is as in [Watched].
func (b *Bundle) Reload() error { return b.f.reload() }
