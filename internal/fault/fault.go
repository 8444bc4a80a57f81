// Package fault is the one error type that travels over all hops of Culvert.
//
// Every failure that a caller may see says which hop failed, what it was doing,
// a code that programs branch on, and one sentence that says what to do. The
// mapping from code to HTTP and gRPC status exists once, here. Messages are for
// people and never contain a credential.
package fault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/culvertdev/culvert/internal/wire"
)

// Error is a failure at one hop. It is immutable once returned and safe for
// concurrent use.
type Error struct {
	// Hop is where it failed.
	Hop wire.Hop
	// Op is what was being done, lower case: "dial", "authenticate", "open".
	Op string
	// Code is what programs branch on.
	Code wire.Code
	// Cluster and Target say what was being reached, where known.
	Cluster, Target string
	// RetryAfter tells a caller when another try makes sense; 0 says nothing.
	RetryAfter time.Duration
	// Err is the cause, one sentence for people. It may be nil.
	Err error
	// Answer, where it is set, is what HTTP clients get in place of what the code
	// means in HTTP.
	Answer *Answer
}

// Answer is an HTTP answer that says more than a code can.
type Answer struct {
	// Status is the HTTP status, and Reason the Status.reason of Kubernetes.
	Status int
	Reason string
	// Causes are what programs find in Status.details.causes.
	Causes []Cause
}

// Cause is one of several things that are wrong.
type Cause struct{ Type, Message string }

// Error returns "hop: op: target: code: cause", leaving out what is empty.
func (e *Error) Error() string {
	parts := make([]string, 0, 6)
	parts = append(parts, e.Hop.String())
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if e.Cluster != "" {
		parts = append(parts, "cluster "+e.Cluster)
	}
	if e.Target != "" {
		parts = append(parts, e.Target)
	}
	parts = append(parts, e.Code.String())
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches what package net or a context would have given for the code, since
// the cause itself may have happened at another hop: [syscall.ECONNREFUSED],
// [syscall.ECONNRESET], [context.Canceled], [context.DeadlineExceeded] and
// [os.ErrDeadlineExceeded].
func (e *Error) Is(target error) bool {
	switch target {
	case syscall.ECONNREFUSED:
		return e.Code == wire.CodeConnectionRefused
	case syscall.ECONNRESET:
		return e.Code == wire.CodeConnectionReset
	case context.Canceled:
		return e.Code == wire.CodeCanceled
	case context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return e.Code == wire.CodeDeadlineExceeded
	default:
		return false
	}
}

// Timeout implements [net.Error].
func (e *Error) Timeout() bool { return e.Code == wire.CodeDeadlineExceeded }

// Temporary implements [net.Error]; it is never used to retry.
func (e *Error) Temporary() bool { return false }

var _ net.Error = (*Error)(nil)

// As returns the fault in err's chain, or nil when there is none.
func As(err error) *Error {
	f, _ := errors.AsType[*Error](err)
	return f
}

// mapping is what one code means outside of the tunnel.
type mapping struct {
	http   int
	reason string
	grpc   codes.Code
}

// The reasons are those of metav1.StatusReason where Kubernetes has one
// (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
var mappings = map[wire.Code]mapping{
	wire.CodeCanceled:          {499, "ClientClosedRequest", codes.Canceled},
	wire.CodeDeadlineExceeded:  {http.StatusGatewayTimeout, "Timeout", codes.DeadlineExceeded},
	wire.CodeInvalidTarget:     {http.StatusBadRequest, "BadRequest", codes.InvalidArgument},
	wire.CodeNotFound:          {http.StatusNotFound, "NotFound", codes.NotFound},
	wire.CodePermissionDenied:  {http.StatusForbidden, "Forbidden", codes.PermissionDenied},
	wire.CodeConnectionRefused: {http.StatusBadGateway, "BadGateway", codes.Unavailable},
	wire.CodeUnreachable:       {http.StatusBadGateway, "BadGateway", codes.Unavailable},
	wire.CodeTLSFailure:        {http.StatusBadGateway, "BadGateway", codes.Unavailable},
	wire.CodeResourceExhausted: {http.StatusServiceUnavailable, "ServiceUnavailable", codes.ResourceExhausted},
	wire.CodeDraining:          {http.StatusServiceUnavailable, "ServiceUnavailable", codes.Unavailable},
	wire.CodeLinkLost:          {http.StatusServiceUnavailable, "ServiceUnavailable", codes.Unavailable},
	wire.CodeConnectionReset:   {http.StatusBadGateway, "BadGateway", codes.Unavailable},
	wire.CodeProtocolError:     {http.StatusBadGateway, "BadGateway", codes.Internal},
	wire.CodeFlowControlError:  {http.StatusBadGateway, "BadGateway", codes.Internal},
	wire.CodeReplaced:          {http.StatusServiceUnavailable, "ServiceUnavailable", codes.Unavailable},
	wire.CodeInternal:          {http.StatusInternalServerError, "InternalError", codes.Internal},
	wire.CodeUnauthenticated:   {http.StatusUnauthorized, "Unauthorized", codes.Unauthenticated},
	wire.CodeUnavailable:       {http.StatusServiceUnavailable, "ServiceUnavailable", codes.Unavailable},
	wire.CodeTooManyRequests:   {http.StatusTooManyRequests, "TooManyRequests", codes.ResourceExhausted},
	wire.CodeRequestTooLarge:   {http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", codes.ResourceExhausted},
	wire.CodeMisdirected:       {http.StatusMisdirectedRequest, "MisdirectedRequest", codes.InvalidArgument},
}

// HTTPStatus returns the HTTP status of the answer or, without one, of the code.
func (e *Error) HTTPStatus() int {
	if e.Answer != nil {
		return e.Answer.Status
	}
	return mappings[e.Code.Known()].http
}

// Reason returns the Kubernetes Status.reason of the answer or, without one, of the
// code.
func (e *Error) Reason() string {
	if e.Answer != nil {
		return e.Answer.Reason
	}
	return mappings[e.Code.Known()].reason
}

// GRPCCode returns the gRPC status code of the code.
func (e *Error) GRPCCode() codes.Code { return mappings[e.Code.Known()].grpc }
