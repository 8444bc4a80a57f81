package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// KeyPair is a certificate with its key that stays current by itself: from files
// that are followed ([LoadKeyPair]) or issued by the hub ([SelfServing]). It is
// safe for concurrent use and needs no closing; the zero value is not usable.
type KeyPair struct {
	get func() *tls.Certificate
}

// LoadKeyPair reads a certificate with its chain, the peer's own first, and its
// key, both PEM; the two may be one file. It checks that the files are whole,
// that the key is the certificate's and that the certificate is valid now, and
// follows the files from then on: see the package documentation.
//
// A key that every user of the machine can read is reported, not refused:
// mounted Secrets of Kubernetes have mode 0644 unless told otherwise.
func LoadKeyPair(certFile, keyFile string, opts ...Option) (*KeyPair, error) {
	o := newOptions(opts)
	switch {
	case certFile == "":
		return nil, errors.New("load key pair: no certificate file given")
	case keyFile == "":
		return nil, errors.New("load key pair: no key file given")
	}
	f, err := follow("key pair", o.log, parsePairFiles, certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load key pair: %w", err)
	}
	if mode := f.seen[1].Mode().Perm(); mode&0o004 != 0 && modesCount() {
		o.log.Warn("private key can be read by every user of this machine, give it mode 0600",
			"file", keyFile, "mode", fmt.Sprintf("%04o", mode))
	}
	return &KeyPair{get: f.get}, nil
}

func parsePairFiles(files []input) (*tls.Certificate, error) {
	cert, err := parsePair(files[0].path, files[0].data, files[1].path, files[1].data)
	if err != nil {
		return nil, err
	}
	if err := checkValidity(cert.Leaf, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", files[0].path, err)
	}
	return cert, nil
}

// parsePair does not judge dates.
func parsePair(certName string, certPEM []byte, keyName string, keyPEM []byte) (*tls.Certificate, error) {
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certName, err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyName, err)
	}
	for i, cert := range certs {
		if !samePublicKey(cert, key) {
			continue
		}
		if i > 0 {
			return nil, fmt.Errorf("%s: the certificate of the key is number %d in the file, put it first and its issuers after it", certName, i+1)
		}
		pair := &tls.Certificate{PrivateKey: key, Leaf: cert}
		for _, cert := range certs {
			pair.Certificate = append(pair.Certificate, cert.Raw)
		}
		return pair, nil
	}
	return nil, fmt.Errorf("%s is not the key of %s: the two have different public keys", keyName, certName)
}

// Leaf returns the certificate in force, without its chain. It must not be
// changed.
func (k *KeyPair) Leaf() *x509.Certificate { return k.get().Leaf }

// GetCertificate is for the field of that name of a server's tls.Config. It
// never fails.
func (k *KeyPair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.get(), nil
}

// GetClientCertificate is for the field of that name of a client's tls.Config.
// It gives the certificate even to a server that names other authorities, so
// that the refusal is the server's and says why. It never fails.
func (k *KeyPair) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return k.get(), nil
}
