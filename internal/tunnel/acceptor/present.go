package acceptor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// maxPresentedChain bounds what is parsed.
const maxPresentedChain = 8

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
	if err := tunnel.VerifyPresentation(on, chain[0], req.GetSignature()); err != nil {
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
