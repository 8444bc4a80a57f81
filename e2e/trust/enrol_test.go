package trust

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

// The ALPN names of docs/protocol.md.
const (
	tunnelProtocol = "culvert.tunnel.v1"
	enrolProtocol  = "culvert.enrol.v1"
)

// tokenParts are what of a join token's text the hub is told.
func tokenParts(t *testing.T, token string) *culvertv1.JoinToken {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	var payload struct{ ID, Secret string }
	must(t, json.Unmarshal(text, &payload))
	return &culvertv1.JoinToken{Id: payload.ID, Secret: payload.Secret}
}

// csr is a certificate request of a new key.
func csr(t *testing.T, template *x509.CertificateRequest) (der []byte, key crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err = x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return der, key
}

// rawEnrol speaks to the hub as a program does that is not culvert-agent.
func (h *hub) rawEnrol(ctx context.Context, req *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	return h.rawEnrolAt(ctx, h.addr(), req)
}

// rawEnrolAt is rawEnrol at one of the hub's ports.
func (h *hub) rawEnrolAt(ctx context.Context, addr string, req *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	cfg := &tls.Config{RootCAs: h.roots(), NextProtos: []string{enrolProtocol}, MinVersion: tls.VersionTLS13}
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(alpn{credentials.NewTLS(cfg), cfg}))
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	return culvertv1.NewEnrolmentServiceClient(cc).Enroll(ctx, req)
}

// alpn is gRPC's TLS without its own ALPN name.
type alpn struct {
	credentials.TransportCredentials

	cfg *tls.Config
}

// ClientHandshake implements [credentials.TransportCredentials].
func (a alpn) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg := a.cfg.Clone()
	cfg.ServerName, _, _ = net.SplitHostPort(authority) // the tests' addresses are good
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	return conn, credentials.TLSInfo{State: conn.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// Clone implements [credentials.TransportCredentials].
func (a alpn) Clone() credentials.TransportCredentials { return a }

// exchangeTime bounds one handshake and its verdict.
const exchangeTime = 20 * time.Second

// tunnelConfig is an agent's TLS.
func (h *hub) tunnelConfig(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: h.roots(), ServerName: "localhost", NextProtos: []string{tunnelProtocol}, Certificates: certs}
}

// shakeHands connects as an agent does and returns how the hub ended it and the
// address under which its log has it.
func (h *hub) shakeHands(t *testing.T, addr string, cfg *tls.Config) (local string, err error) {
	t.Helper()
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	must(t, err)
	defer raw.Close()
	must(t, raw.SetDeadline(time.Now().Add(exchangeTime)))
	conn := tls.Client(raw, cfg)
	if err = conn.Handshake(); err == nil {
		_, err = io.ReadAll(conn) // TLS 1.3: the verdict comes after the client's part
	}
	return raw.LocalAddr().String(), err
}

// presented returns the chain that the hub shows to a client that asks for a
// name, unverified.
func (h *hub) presented(ctx context.Context, name string) ([]*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	conn, err := dialer.DialContext(ctx, "tcp", h.addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates, nil
}

// serves is an error unless the hub shows this certificate.
func (h *hub) serves(ctx context.Context, name string, want *x509.Certificate) error {
	chain, err := h.presented(ctx, name)
	if err != nil {
		return err
	}
	if !chain[0].Equal(want) {
		return fmt.Errorf("it shows %s of %s, want %s", chain[0].SerialNumber, chain[0].Issuer, want.SerialNumber)
	}
	return nil
}

// isAlert tells whether the hub ended a handshake with an alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
