package service

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/store"
)

const (
	// enrollTime bounds one call, the review of a token included.
	enrollTime = 20 * time.Second
	// askAgain is what agents of clusters that wait to be accepted are told.
	askAgain = 2 * time.Second
	// maxAccountToken bounds the token of a service account, in bytes.
	maxAccountToken = 16 << 10
)

// Enroll answers EnrolmentService.Enroll for a peer that nothing is known of. The
// error is a gRPC status.
func (s *Service) Enroll(ctx context.Context, req *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTime)
	defer cancel()
	b := basis{cluster: req.GetCluster(), remote: remoteOf(ctx)}
	resp, err := s.enroll(ctx, req, &b)
	if err != nil {
		r := judge(err)
		s.refused("enrolment refused", b, r, err)
		return nil, r.status()
	}
	return resp, nil
}

// enroll fills b as it learns, for the log.
func (s *Service) enroll(ctx context.Context, req *culvertv1.EnrollRequest, b *basis) (*culvertv1.EnrollResponse, error) {
	if wait := s.callers.take(networkOf(b.remote), time.Now()); wait > 0 {
		b.cluster = ""
		return nil, &refusal{
			code: codes.ResourceExhausted, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_TOO_MANY,
			message: "too many attempts to enrol from this network: try again in a few seconds", retry: wait,
		}
	}
	if b.cluster != "" {
		if err := route.CheckCluster(b.cluster); err != nil {
			b.cluster = ""
			return nil, badRequest("the agent asks for an impossible cluster: " + err.Error())
		}
	}
	request, err := pki.ParseRequest(req.GetCsr())
	if err != nil {
		return nil, badRequest(err.Error())
	}
	// Before a token is spent.
	if !s.cfg.Issuer.CanSign() {
		return nil, pki.ErrNoKey
	}
	switch {
	case req.GetJoinToken() != nil:
		return s.enrollByToken(req.GetJoinToken(), request, req.GetCsr(), b)
	case req.GetServiceAccountToken() != "":
		return s.enrollByAccount(ctx, req.GetServiceAccountToken(), request, b)
	}
	return nil, badRequest("no credential: want a join token or a service account's token")
}

func (s *Service) enrollByToken(shown *culvertv1.JoinToken, request *pki.Request, csr []byte, b *basis) (*culvertv1.EnrollResponse, error) {
	b.credential = "join token " + printable(shown.GetId())
	token, err := s.cfg.State.UseToken(store.Use{
		ID: shown.GetId(), Secret: shown.GetSecret(), Cluster: b.cluster, Key: request.Pin, By: b.remote, At: time.Now(),
	})
	if err != nil {
		if b.cluster == "" {
			b.cluster = clusterOf(err)
		}
		return nil, err
	}
	b.cluster, b.token = token.Cluster, token.ID
	if token.Approval {
		now := time.Now()
		pending, err := s.cfg.State.Ask(store.Pending{
			Cluster: token.Cluster, Key: request.Pin, CSR: csr, Token: token.ID, Remote: b.remote,
		}, now)
		if err != nil {
			return nil, err
		}
		if pending.Accepted.IsZero() {
			if pending.Asked.Equal(now) {
				s.log.Info("cluster waits to be accepted",
					"accept", "culvert clusters accept "+token.Cluster, "cluster", token.Cluster, "remote", b.remote, "credential", b.credential, "key", request.Pin)
			}
			return &culvertv1.EnrollResponse{Outcome: &culvertv1.EnrollResponse_Pending{Pending: &culvertv1.PendingAcceptance{
				Cluster: token.Cluster, Key: request.Pin, RetryAfter: durationpb.New(askAgain),
			}}}, nil
		}
	}
	return s.finish(request, *b, token.Approval)
}

func (s *Service) enrollByAccount(ctx context.Context, token string, request *pki.Request, b *basis) (*culvertv1.EnrollResponse, error) {
	b.credential = "service account"
	switch {
	case s.cfg.Accounts == nil:
		return nil, &refusal{
			code: codes.PermissionDenied, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED,
			message: "this hub has no rules for service accounts: use a join token, made with culvert token create",
		}
	case len(token) > maxAccountToken:
		return nil, badRequest("the service account's token is too long to be one")
	}
	cluster, account, err := s.cfg.Accounts.Verify(ctx, token, b.cluster)
	if account != "" {
		b.credential = printable(account)
	}
	if err != nil {
		return nil, err
	}
	b.cluster = cluster
	return s.finish(request, *b, false)
}

// finish issues the certificate of an enrolment.
func (s *Service) finish(request *pki.Request, b basis, asked bool) (*culvertv1.EnrollResponse, error) {
	issued, err := s.issue(request, b)
	if err != nil {
		return nil, err
	}
	if asked {
		if err := s.cfg.State.RemovePending(b.cluster, request.Pin); err != nil {
			// It has its certificate; the record goes with its age.
			s.log.Error("cannot remove a cluster from those that wait", "cluster", b.cluster, "reason", err)
		}
	}
	s.log.Info("agent enrolled", "cluster", b.cluster, "remote", b.remote, "credential", b.credential, "key", request.Pin,
		"serial", store.SerialOf(issued.Certificate.SerialNumber), "expires", issued.Certificate.NotAfter.UTC().Format(time.RFC3339))
	return s.answer(issued, b.cluster), nil
}

// remoteOf is the peer's address, for people.
func remoteOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	return p.Addr.String()
}

// errNoAddress is a connection without an address, which TCP has not.
var errNoAddress = errors.New("no address")

// hostOf is the IP address of host:port.
func hostOf(remote string) (string, error) {
	host, _, err := net.SplitHostPort(remote)
	if err != nil || host == "" {
		return "", errNoAddress
	}
	return host, nil
}
