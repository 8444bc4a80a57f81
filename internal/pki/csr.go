package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// MaxRequest is how long a certificate request may be, in bytes of DER. One of
// an RSA key of [maxRSABits] is about two thousand.
const MaxRequest = 16 << 10

// maxRSABits bounds the work that one signature of a stranger makes.
const maxRSABits = 8192

// maxIgnored bounds how many things of a request are listed.
const maxIgnored = 16

// Request is what of a certificate request is used. It is immutable.
type Request struct {
	// Key is the public key. Whoever made the request has its private key.
	Key crypto.PublicKey
	// Pin is the [Pin] of Key.
	Pin string
	// Ignored lists what the request asks for beyond its key, for people: what is
	// quoted of it is printable and short. It is nil for a request of [NewRequest].
	Ignored []string
}

// NewRequest returns a certificate request, DER, that asks for nothing but a
// certificate: the hub decides what is in it.
func NewRequest(key crypto.Signer) ([]byte, error) {
	if err := checkRequestKey(key.Public()); err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// ParseRequest reads a certificate request, DER (RFC 2986), from a peer that is
// not trusted. Its signature has to be right and its key ECDSA on P-256 or P-384,
// Ed25519, or RSA of 2048 to 8192 bits; the error says what is wrong. Nothing else
// of it is used, whatever it is: see [Request.Ignored].
func ParseRequest(der []byte) (*Request, error) {
	request, err := parseRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return request, nil
}

func parseRequest(der []byte) (*Request, error) {
	switch {
	case len(der) == 0:
		return nil, errors.New("empty")
	case len(der) > MaxRequest:
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(der), MaxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("malformed: %w", err)
	}
	// The key before the signature, which costs more the larger the key is.
	if err := checkRequestKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("not signed by the key in it: %w", err)
	}
	pin, err := PinKey(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Request{Key: csr.PublicKey, Pin: pin, Ignored: ignoredOf(csr)}, nil
}

// checkRequestKey is narrower than checkPublicKey: an operator's own file may
// have a key that the hub does not sign.
func checkRequestKey(pub crypto.PublicKey) error {
	const want = "want ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() || pub.Curve == elliptic.P384() {
			return nil
		}
		if pub.Curve == nil {
			return errors.New("public key: ECDSA without a curve, " + want)
		}
		return fmt.Errorf("public key: ECDSA on %s, %s", pub.Params().Name, want)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if pub.N == nil {
			return errors.New("public key: RSA without a modulus, " + want)
		}
		if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("public key: RSA of %d bits, %s", bits, want)
		}
		return nil
	default:
		return fmt.Errorf("public key: of type %T, %s", pub, want)
	}
}

// ignoredOf describes what a request asks for beyond its key.
func ignoredOf(csr *x509.CertificateRequest) []string {
	var list []string
	add := func(format string, args ...any) {
		if len(list) < maxIgnored {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	if len(csr.Subject.Names) > 0 {
		add("subject %s", quote(csr.Subject.String()))
	}
	for _, uri := range csr.URIs {
		add("URI name %s", quote(uri.String()))
	}
	for _, name := range csr.DNSNames {
		add("DNS name %s", quote(name))
	}
	for _, ip := range csr.IPAddresses {
		add("IP address %s", ip)
	}
	for _, name := range csr.EmailAddresses {
		add("email address %s", quote(name))
	}
	for _, extension := range csr.Extensions {
		switch {
		case extension.Id.Equal(subjectAltName()):
			if len(csr.URIs)+len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) == 0 {
				add("subject alternative names of other kinds")
			}
		case extension.Id.Equal(basicConstraints()):
			add("basic constraints (%s)", describeConstraints(extension.Value))
		default:
			add("extension %s", extensionName(extension.Id))
		}
	}
	return list
}

// basicConstraints is id-ce-basicConstraints, RFC 5280 section 4.2.1.9.
func basicConstraints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 19} }

func describeConstraints(value []byte) string {
	var constraints struct {
		IsCA       bool `asn1:"optional"`
		MaxPathLen int  `asn1:"optional,default:-1"`
	}
	switch rest, err := asn1.Unmarshal(value, &constraints); {
	case err != nil || len(rest) > 0:
		return "malformed"
	case constraints.IsCA:
		return "CA:true"
	}
	return "CA:false"
}

// extensionName gives the name of RFC 5280 section 4.2.1 where there is one.
func extensionName(id asn1.ObjectIdentifier) string {
	switch id.String() {
	case "2.5.29.15":
		return "key usage"
	case "2.5.29.30":
		return "name constraints"
	case "2.5.29.37":
		return "extended key usage"
	case "2.5.29.14":
		return "subject key identifier"
	default:
		return quote(id.String())
	}
}
