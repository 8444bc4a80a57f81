package tunnel

import (
	"context"
	"crypto/x509"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

// Renewal is who asks for a new certificate.
type Renewal struct {
	// Cluster is the one that the connection was authenticated as.
	Cluster string
	// Addr is the agent's address.
	Addr net.Addr
	// Certificate is the newest that the agent got over this connection, or else
	// the one of its handshake. It must not be changed.
	Certificate *x509.Certificate
}

// RenewFunc answers EnrolmentService.Renew of an agent whose link is alive. It
// returns the certificate that it issued, so that the link lives as long as that;
// nil when none was asked for. The error is a gRPC status.
type RenewFunc func(context.Context, Renewal, *culvertv1.RenewRequest) (*culvertv1.RenewResponse, *x509.Certificate, error)

// renewal serves the half of EnrolmentService that belongs on a tunnel.
type renewal struct {
	culvertv1.UnimplementedEnrolmentServiceServer

	server *Server
}

// Enroll implements EnrolmentService.
func (renewal) Enroll(context.Context, *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	plain := status.New(codes.FailedPrecondition, "enrolment has a protocol of its own on this port, culvert.enrol.v1")
	detailed, err := plain.WithDetails(&culvertv1.EnrolmentFailure{Reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_PORT})
	if err != nil {
		return nil, plain.Err()
	}
	return nil, detailed.Err()
}

// Renew implements EnrolmentService.
func (v renewal) Renew(ctx context.Context, req *culvertv1.RenewRequest) (*culvertv1.RenewResponse, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	conn, ok := p.AuthInfo.(connection)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	// The certificate of the handshake may have expired since. What counts is the
	// link, which ends when the newest one does.
	cluster, cert, ok := conn.lease.holder()
	switch {
	case !ok:
		return nil, status.Error(codes.Unauthenticated, "a certificate is renewed over the connection of a live link, and there is none on this one")
	case v.server.cfg.Renew == nil:
		return nil, status.Error(codes.Unimplemented, "this hub does not renew certificates")
	}
	resp, issued, err := v.server.cfg.Renew(ctx, Renewal{Cluster: cluster, Addr: p.Addr, Certificate: cert}, req)
	if err != nil || issued == nil {
		return resp, err
	}
	if err := conn.lease.prolong(issued); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return resp, nil
}

// Conn returns the connection of the link that works now, for calls beside the
// link; nil when there is none. The dialler owns it.
func (d *Dialer) Conn() grpc.ClientConnInterface {
	if c := d.conn.Load(); c != nil {
		return c.cc
	}
	return nil
}
