package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"
)

// KeyPair is a certificate with its key that stays current by itself: from files
// that are followed ([LoadKeyPair], [LoadPair], [LoadServing]) or issued by the
// hub ([SelfServing]). It is safe for concurrent use and needs no closing; the
// zero value is not usable.
type KeyPair struct {
	from   pairSource
	withCA atomic.Pointer[caPair]
}

// pairSource is where the certificate of a KeyPair comes from.
type pairSource interface {
	get() *pairValue
	status(s Status) Status
	reload() error
}

// pairValue is what is in force. It is immutable.
type pairValue struct {
	cert     *tls.Certificate
	cas      []*x509.Certificate // what clients have to trust; nil when that is the system's, or not known
	warnings []string
	self     bool // issued by the hub
}

// caPair is a pairValue with the authorities sent along.
type caPair struct {
	of   *pairValue
	cert *tls.Certificate
}

// filePair is a pairSource of files.
type filePair struct {
	*followed[*pairValue]
	fallback *KeyPair
}

func (p filePair) get() *pairValue {
	if value := p.followed.get(); value != nil {
		return value
	}
	return p.fallback.value() // no file has been there yet
}

// LoadKeyPair is [LoadPair] for a certificate file and a key file; the two may be
// one file.
func LoadKeyPair(certFile, keyFile string, opts ...Option) (*KeyPair, error) {
	switch {
	case certFile == "":
		return nil, errors.New("load key pair: no certificate file given")
	case keyFile == "":
		return nil, errors.New("load key pair: no key file given")
	}
	return LoadPair(Source{CertFile: certFile, KeyFile: keyFile}, opts...)
}

// LoadPair reads a certificate and its key. It checks that the texts are whole,
// that the key is the certificate's and that the certificate is valid now (the
// error is [*ExpiredError] when it is over), and follows the files from then on:
// see the package documentation. It is for peers that show a certificate as a
// client; [LoadServing] checks more.
//
// What [WithOpenKeys] says is done about a key that every user of the machine can
// read.
func LoadPair(source Source, opts ...Option) (*KeyPair, error) {
	pair, err := loadPair(source, newOptions("key pair", opts), func(*pairValue) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("load key pair: %w", err)
	}
	return pair, nil
}

// loadPair follows a source. check judges what it holds, and may complete it.
func loadPair(source Source, o options, check func(*pairValue) error) (*KeyPair, error) {
	parts, files, err := source.parts(o)
	if err != nil {
		return nil, err
	}
	parse := func(in []input) (*pairValue, error) {
		value, err := parseParts(parts, in, o)
		if err != nil {
			return nil, err
		}
		if err := check(value); err != nil {
			return nil, fmt.Errorf("%s: %w", parts.cert.input(in).path, err)
		}
		for _, warning := range value.warnings {
			o.log.Warn("a certificate or key is not as it should be", "what", o.name, "problem", warning)
		}
		return value, nil
	}
	f, err := follow(o, parse, files...)
	if err != nil {
		if o.fallback == nil || !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		o.log.Warn("files are missing, something else is used until they appear", "what", o.name, "err", err)
		f = followLater(o, parse, (*pairValue)(nil), err, files...)
	}
	return &KeyPair{from: filePair{f, o.fallback}}, nil
}

func parseParts(p parts, in []input, o options) (*pairValue, error) {
	var passphrase []byte
	var err error
	if p.passphrase.given() {
		file := p.passphrase.input(in)
		passphrase, err = o.passphrase(&file)
	} else {
		passphrase, err = o.passphrase(nil)
	}
	if err != nil {
		return nil, err
	}
	cert, key := p.cert.input(in), p.key.input(in)
	value := &pairValue{}
	if key.info != nil {
		warning, err := o.judgeMode(key, 0o004, false)
		if err != nil {
			return nil, err
		}
		if warning != "" {
			value.warnings = append(value.warnings, warning)
		}
	}
	if value.cert, err = parsePair(cert.path, cert.data, key.path, key.data, passphrase); err != nil {
		return nil, err
	}
	if err := checkValidity(value.cert.Leaf, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", cert.path, err)
	}
	// cert-manager leaves ca.crt empty where an issuer does not say.
	if ca := p.ca.input(in); len(bytes.TrimSpace(ca.data)) > 0 {
		if value.cas, err = parseCertificates(ca.data); err != nil {
			return nil, fmt.Errorf("%s: %w", ca.path, err)
		}
	}
	return value, nil
}

// parsePair does not judge dates.
func parsePair(certName string, certPEM []byte, keyName string, keyPEM, passphrase []byte) (*tls.Certificate, error) {
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certName, err)
	}
	key, err := parseKey(keyPEM, passphrase)
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

func (k *KeyPair) value() *pairValue { return k.from.get() }

func (k *KeyPair) get() *tls.Certificate { return k.value().cert }

// Leaf returns the certificate in force, without its chain. It must not be
// changed.
func (k *KeyPair) Leaf() *x509.Certificate { return k.get().Leaf }

// SelfIssued tells whether the certificate in force is one of [SelfServing].
func (k *KeyPair) SelfIssued() bool { return k.value().self }

// CA returns what clients have to trust for the certificate in force, the one that
// signs first: the CA of the [Source], the hub's own authority, or the root in the
// file's own chain where the system does not trust that. It is nil when clients
// need nothing but their system's CAs, or when it is not known.
func (k *KeyPair) CA() []*x509.Certificate { return slices.Clone(k.value().cas) }

// GetCertificate is for the field of that name of a server's tls.Config. It
// never fails.
func (k *KeyPair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return k.get(), nil
}

// GetCertificateWithCA is GetCertificate with [KeyPair.CA] sent at the end of the
// chain, for clients that know no more than the [Pin] of one of them: see
// [VerifyPinned]. It never fails.
func (k *KeyPair) GetCertificateWithCA(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	value := k.value()
	if last := k.withCA.Load(); last != nil && last.of == value {
		return last.cert, nil
	}
	cert := *value.cert
	cert.Certificate = slices.Clone(cert.Certificate)
	for _, ca := range value.cas {
		if !slices.ContainsFunc(cert.Certificate, func(der []byte) bool { return bytes.Equal(der, ca.Raw) }) {
			cert.Certificate = append(cert.Certificate, ca.Raw)
		}
	}
	k.withCA.Store(&caPair{value, &cert})
	return &cert, nil
}

// GetClientCertificate is for the field of that name of a client's tls.Config.
// It gives the certificate even to a server that names other authorities, so
// that the refusal is the server's and says why. It never fails.
func (k *KeyPair) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return k.get(), nil
}

// Status is as in [Watched].
func (k *KeyPair) Status() Status {
	value := k.value()
	s := statusOf(value.cert.Leaf)
	s.Warnings = slices.Clone(value.warnings)
	return k.from.status(s)
}

// Reload is as in [Watched]. A pair of [SelfServing] is issued again only where
// its files or names ask for it.
func (k *KeyPair) Reload() error { return k.from.reload() }
