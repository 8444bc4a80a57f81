package tunnel

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

// Presenting a certificate prolongs a link whose certificate others renew, without a
// handshake: what is signed with the new certificate's key is bound to the connection
// by a value that only its two ends can compute (RFC 5705, RFC 8446 section 7.5), so
// that it is worth nothing anywhere else. docs/protocol.md, section 17.8.

const (
	// exporterLabel is of private use, RFC 5705 section 4.
	exporterLabel  = "EXPERIMENTAL culvert agent certificate"
	exporterLength = sha256.Size
	// presentationContext keeps the signature apart from every other that the key may
	// make, by the form of RFC 8446 section 4.4.3.
	presentationContext = "culvert, certificate of an agent"
)

// presentation returns what is signed to show a certificate on a connection.
func presentation(state *tls.ConnectionState, leaf []byte) ([]byte, error) {
	secret, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterLength)
	if err != nil {
		return nil, fmt.Errorf("bind the certificate to the connection: %w", err)
	}
	digest := sha256.Sum256(leaf)
	text := append([]byte(strings.Repeat(" ", 64)+presentationContext), 0)
	return append(append(text, secret...), digest[:]...), nil
}

// SignPresentation signs a certificate for the connection whose state it is.
func SignPresentation(state *tls.ConnectionState, cert *tls.Certificate) ([]byte, error) {
	text, err := presentation(state, cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	signature, err := signPresentation(cert.PrivateKey, text)
	if err != nil {
		return nil, fmt.Errorf("sign with the certificate's key: %w", err)
	}
	return signature, nil
}

// signPresentation signs by the one scheme that there is for a kind of key.
func signPresentation(key crypto.PrivateKey, text []byte) ([]byte, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	digest := sha256.Sum256(text)
	switch signer.Public().(type) {
	case *ecdsa.PublicKey:
		return signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	case *rsa.PublicKey:
		return signer.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	case ed25519.PublicKey:
		return signer.Sign(rand.Reader, text, crypto.Hash(0))
	default:
		return nil, fmt.Errorf("a key of type %T: want ECDSA, RSA or Ed25519", signer.Public())
	}
}

// errBadSignature is one that was made with another key, or for another connection.
var errBadSignature = errors.New("the signature is not of the certificate's key on this connection")

// VerifyPresentation returns an error unless leaf's key has made signature for the
// connection whose state it is.
func VerifyPresentation(state *tls.ConnectionState, leaf *x509.Certificate, signature []byte) error {
	text, err := presentation(state, leaf.Raw)
	if err != nil {
		return err
	}
	return verifyPresentation(leaf.PublicKey, text, signature)
}

func verifyPresentation(key crypto.PublicKey, text, signature []byte) error {
	digest := sha256.Sum256(text)
	good := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(key, digest[:], signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(key, text, signature)
	}
	if !good {
		return errBadSignature
	}
	return nil
}

// ErrPresentUnknown is what Present returns where the hub is older than it.
var ErrPresentUnknown = errors.New("this hub takes no new certificate over a tunnel, which ends with the old one: update the hub")

// Present shows the hub of the link that works now a certificate, unless it was
// shown already, in the handshake or before. done tells that the hub knows it; it is
// false, without an error, where there is no link.
func (d *Dialer) Present(ctx context.Context, cert *tls.Certificate) (done bool, err error) {
	c := d.current.Load()
	if c == nil {
		return false, nil
	}
	if shown := c.shown.Load(); shown != nil && sameLeaf(shown, cert) {
		return true, nil
	}
	signature, err := SignPresentation(&c.state, cert)
	if err != nil {
		return false, err
	}
	_, err = culvertv1.NewEnrolmentServiceClient(c.grpc).Present(ctx, &culvertv1.PresentRequest{
		CertificateChain: cert.Certificate, Signature: signature,
	})
	if status.Code(err) == codes.Unimplemented {
		return false, ErrPresentUnknown
	}
	if err != nil {
		return false, fmt.Errorf("present the certificate to the hub: %w", err)
	}
	c.shown.Store(cert)
	return true, nil
}

func sameLeaf(a, b *tls.Certificate) bool {
	return len(a.Certificate) > 0 && len(b.Certificate) > 0 && string(a.Certificate[0]) == string(b.Certificate[0])
}

// remember makes a TLS configuration note which certificate it shows.
func remember(cfg *tls.Config, shown *atomic.Pointer[tls.Certificate]) {
	get := cfg.GetClientCertificate
	if get == nil {
		return // with fixed certificates there is no newer one
	}
	cfg.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := get(info)
		shown.Store(cert)
		return cert, err
	}
}
