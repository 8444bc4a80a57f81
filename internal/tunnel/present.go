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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
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
	// maxPresentedChain bounds what is parsed.
	maxPresentedChain = 8
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

// Present implements EnrolmentService.
func (v renewal) Present(ctx context.Context, req *culvertv1.PresentRequest) (*culvertv1.PresentResponse, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	conn, ok := p.AuthInfo.(connection)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	cluster, _, ok := conn.lease.holder()
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "a certificate is presented on the connection of a live link, and there is none on this one")
	}
	log := v.server.cfg.Logger.With("cluster", cluster, "remote", p.Addr.String())
	leaf, err := v.judgePresented(&conn.State, cluster, req)
	if err != nil {
		log.Warn("presented certificate refused, the link goes on with the one before", "reason", err)
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	if err := conn.lease.prolong(leaf); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	log.Info("certificate presented, the link lives as long", "serial", leaf.SerialNumber.Text(16),
		"expires", leaf.NotAfter.UTC().Format(time.RFC3339))
	return &culvertv1.PresentResponse{}, nil
}

// judgePresented returns the certificate when it proves the cluster that the
// connection is of, as in a handshake.
func (v renewal) judgePresented(on *tls.ConnectionState, cluster string, req *culvertv1.PresentRequest) (*x509.Certificate, error) {
	chain := make([]*x509.Certificate, 0, len(req.GetCertificateChain()))
	if n := len(req.GetCertificateChain()); n == 0 || n > maxPresentedChain {
		return nil, fmt.Errorf("a chain of %d certificates: want 1 to %d", n, maxPresentedChain)
	}
	for i, der := range req.GetCertificateChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
		chain = append(chain, cert)
	}
	text, err := presentation(on, chain[0].Raw)
	if err != nil {
		return nil, err
	}
	if err := verifyPresentation(chain[0].PublicKey, text, req.GetSignature()); err != nil {
		return nil, err
	}
	proven, err := v.server.cfg.Cluster(tls.ConnectionState{PeerCertificates: chain})
	if err != nil {
		return nil, err
	}
	if proven != cluster {
		return nil, fmt.Errorf("it is of the cluster %s, and this link of %s: restart the agent to become another one", proven, cluster)
	}
	return chain[0], nil
}

// carrier is the connection of a link at its dialler.
type carrier struct {
	cc    *grpc.ClientConn
	state tls.ConnectionState
	// shown is the certificate that the hub has seen last.
	shown atomic.Pointer[tls.Certificate]
}

// ErrPresentUnknown is what Present returns where the hub is older than it.
var ErrPresentUnknown = errors.New("this hub takes no new certificate over a tunnel, which ends with the old one: update the hub")

// Present shows the hub of the link that works now a certificate, unless it was
// shown already, in the handshake or before. done tells that the hub knows it; it is
// false, without an error, where there is no link.
func (d *Dialer) Present(ctx context.Context, cert *tls.Certificate) (done bool, err error) {
	c := d.conn.Load()
	if c == nil {
		return false, nil
	}
	if shown := c.shown.Load(); shown != nil && sameLeaf(shown, cert) {
		return true, nil
	}
	text, err := presentation(&c.state, cert.Certificate[0])
	if err != nil {
		return false, err
	}
	signature, err := signPresentation(cert.PrivateKey, text)
	if err != nil {
		return false, fmt.Errorf("sign with the certificate's key: %w", err)
	}
	_, err = culvertv1.NewEnrolmentServiceClient(c.cc).Present(ctx, &culvertv1.PresentRequest{
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
