package service

import (
	"context"
	"crypto/x509"
	"time"

	"google.golang.org/grpc/codes"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
)

// Renew is a acceptor.RenewFunc: it gives the agent of a live link a certificate of
// the same cluster, and the hub's CAs. What the agent shows has to come from this
// hub's own CA: one that an operator made elsewhere, for as long as they chose,
// does not turn into one of the hub's.
func (s *Service) Renew(_ context.Context, who acceptor.Renewal, req *culvertv1.RenewRequest) (*culvertv1.RenewResponse, *x509.Certificate, error) {
	b := basis{
		cluster: who.Cluster, remote: who.Addr.String(),
		previous:   store.SerialOf(who.Certificate.SerialNumber),
		credential: "certificate " + store.SerialOf(who.Certificate.SerialNumber),
	}
	issued, err := s.renew(who, req, b)
	if err != nil {
		r := judge(err)
		s.refused("renewal refused", b, r, err)
		return nil, nil, r.status()
	}
	resp := &culvertv1.RenewResponse{HubCa: s.cfg.HubCA()}
	if issued == nil {
		return resp, nil, nil
	}
	resp.CertificateChain = issued.PEM
	s.log.Info("certificate renewed", "cluster", b.cluster, "remote", b.remote, "previous", b.previous,
		"serial", store.SerialOf(issued.Certificate.SerialNumber), "expires", issued.Certificate.NotAfter.UTC().Format(time.RFC3339))
	return resp, issued.Certificate, nil
}

// renew returns nil when no certificate was asked for.
func (s *Service) renew(who acceptor.Renewal, req *culvertv1.RenewRequest, b basis) (*pki.Issued, error) {
	if wait := s.renewals.take(b.cluster, time.Now()); wait > 0 {
		return nil, &refusal{
			code: codes.ResourceExhausted, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_TOO_MANY,
			message: "too many renewals of one cluster: try again in a few seconds", retry: wait,
		}
	}
	if err := s.cfg.State.CheckCertificate(b.cluster, who.Certificate); err != nil {
		return nil, err
	}
	if len(req.GetCsr()) == 0 {
		return nil, nil
	}
	request, err := pki.ParseRequest(req.GetCsr())
	if err != nil {
		return nil, badRequest(err.Error())
	}
	if !s.cfg.Issuer.CanSign() {
		return nil, pki.ErrNoKey
	}
	_, err = who.Certificate.Verify(x509.VerifyOptions{
		Roots: s.cfg.Issuer.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, &refusal{
			code: codes.FailedPrecondition, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_NOT_ISSUED_HERE,
			message: "the agent's certificate does not come from this hub's own CA, so that whoever made it has to renew it", cause: err,
		}
	}
	return s.issue(request, b)
}
