package service

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/wire"
)

// refusal is an error as the peer gets it.
type refusal struct {
	code   codes.Code
	reason culvertv1.EnrolmentReason
	// message is one sentence for people, with what to do.
	message string
	retry   time.Duration
	// cause is for the hub's log alone.
	cause error
}

// Error is what the peer gets.
func (r *refusal) Error() string { return r.message }

// Unwrap returns what the log says besides.
func (r *refusal) Unwrap() error { return r.cause }

// status is the refusal on the wire.
func (r *refusal) status() error {
	detail := &culvertv1.EnrolmentFailure{Reason: r.reason}
	if r.retry > 0 {
		detail.RetryAfter = durationpb.New(r.retry)
	}
	plain := status.New(r.code, r.message)
	if detailed, err := plain.WithDetails(detail); err == nil { // it fails for code OK only
		return detailed.Err()
	}
	return plain.Err()
}

func badRequest(message string) *refusal {
	return &refusal{code: codes.InvalidArgument, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_BAD_REQUEST, message: message}
}

// judge says what of an error the peer gets. What is a defect of the hub stays in
// its log.
func judge(err error) *refusal {
	var (
		known   *refusal
		used    *store.TokenUsedError
		expired *store.TokenExpiredError
		taken   *store.TokenRevokedError
		other   *store.TokenClusterError
		revoked *store.RevokedError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, store.ErrTokenUnknown):
		return &refusal{codes.Unauthenticated, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_UNKNOWN, store.ErrTokenUnknown.Error(), 0, nil}
	case errors.As(err, &used):
		return &refusal{codes.Unauthenticated, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED, used.Error(), 0, nil}
	case errors.As(err, &expired):
		return &refusal{codes.Unauthenticated, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_EXPIRED, expired.Error(), 0, nil}
	case errors.As(err, &taken):
		return &refusal{codes.Unauthenticated, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_REVOKED, taken.Error(), 0, nil}
	case errors.As(err, &other):
		return &refusal{codes.PermissionDenied, culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_CLUSTER, other.Error(), 0, nil}
	case errors.As(err, &revoked):
		return &refusal{codes.PermissionDenied, culvertv1.EnrolmentReason_ENROLMENT_REASON_CLUSTER_REVOKED, revoked.Error(), 0, nil}
	case errors.Is(err, pki.ErrNoKey):
		return &refusal{
			codes.FailedPrecondition, culvertv1.EnrolmentReason_ENROLMENT_REASON_NOT_ISSUED_HERE,
			"the hub has no key of its agents' CA and issues no certificates: whoever has that CA makes them", 0, err,
		}
	case errors.Is(err, store.ErrTooMany):
		return &refusal{
			codes.ResourceExhausted, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOO_MANY,
			"too many clusters wait to be accepted: accept or turn down some at the hub", 0, err,
		}
	case fault.As(err) != nil:
		return judgeFault(fault.As(err))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &refusal{codes.Unavailable, culvertv1.EnrolmentReason_ENROLMENT_REASON_UNAVAILABLE, "the hub could not judge in time: try again", time.Second, err}
	default:
		return &refusal{codes.Internal, culvertv1.EnrolmentReason_ENROLMENT_REASON_UNSPECIFIED, "internal error of the hub, whose log says more", 0, err}
	}
}

// clusterOf is which cluster a refused token is for; empty when it is not known.
func clusterOf(err error) string {
	var (
		used    *store.TokenUsedError
		expired *store.TokenExpiredError
		taken   *store.TokenRevokedError
	)
	switch {
	case errors.As(err, &used):
		return used.Cluster
	case errors.As(err, &expired):
		return expired.Cluster
	case errors.As(err, &taken):
		return taken.Cluster
	default:
		return ""
	}
}

// judgeFault maps what identity says of a service account's token.
func judgeFault(f *fault.Error) *refusal {
	message := f.Error()
	if f.Err != nil {
		message = f.Err.Error()
	}
	r := &refusal{f.GRPCCode(), culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED, message, f.RetryAfter, nil}
	switch f.Code {
	case wire.CodeUnauthenticated, wire.CodePermissionDenied:
	case wire.CodeInvalidTarget:
		r.reason = culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_CLUSTER
	default:
		// What the reviewing cluster said is for the hub's log.
		r = &refusal{
			codes.Unavailable, culvertv1.EnrolmentReason_ENROLMENT_REASON_UNAVAILABLE,
			"the cluster that judges service accounts' tokens does not answer the hub: try again", time.Second, f,
		}
	}
	return r
}

// refused is the one line about a refusal.
func (s *Service) refused(what string, b basis, r *refusal, err error) {
	args := []any{"remote", b.remote}
	if b.credential != "" {
		args = append(args, "credential", b.credential)
	}
	if b.cluster != "" {
		args = append(args, "cluster", b.cluster)
	}
	args = append(args, "reason", r.message)
	if r.cause != nil {
		args = append(args, "cause", r.cause)
	}
	if r.code == codes.Internal {
		args = append(args, "err", err)
		s.log.Error(what, args...) //nolint:sloglint // one of two sentences
		return
	}
	s.log.Warn(what, args...) //nolint:sloglint // one of two sentences
}

// printable bounds a stranger's text, and keeps it to one line.
func printable(text string) string {
	const most = 64
	if len(text) > most {
		text = text[:most] + "..."
	}
	quoted := strconv.QuoteToASCII(text)
	if quoted == `"`+text+`"` && text != "" {
		return text
	}
	return quoted
}
