package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Code says why something failed. It is a text that does not change, so that programs
// can compare it.
type Code string

// The codes. Those of the tunnel are defined in docs/protocol.md.
const (
	// Canceled: the caller gave up.
	Canceled Code = "canceled"
	// DeadlineExceeded: the time of the caller, or of a hop, was over.
	DeadlineExceeded Code = "deadline exceeded"
	// InvalidTarget: the cluster, the address or the request is malformed.
	InvalidTarget Code = "invalid target"
	// NotFound: there is no cluster, host or path of that name.
	NotFound Code = "not found"
	// PermissionDenied: a policy forbids it, at the hub or at the agent.
	PermissionDenied Code = "permission denied"
	// ConnectionRefused: nothing listens at the target.
	ConnectionRefused Code = "connection refused"
	// Unreachable: the target, or the hub, cannot be reached.
	Unreachable Code = "unreachable"
	// TLSFailure: a certificate cannot be verified, or TLS failed otherwise.
	TLSFailure Code = "tls failure"
	// ResourceExhausted: a bound was reached, of sessions or memory.
	ResourceExhausted Code = "resource exhausted"
	// LinkLost: the connection that carried it is gone.
	LinkLost Code = "link lost"
	// ConnectionReset: the target ended the connection abruptly.
	ConnectionReset Code = "connection reset"
	// Unauthenticated: the credential is missing, wrong or expired.
	Unauthenticated Code = "unauthenticated"
	// Unavailable: it may work later, see RetryAfter; such as a cluster without an agent.
	Unavailable Code = "unavailable"
	// TooManyRequests: the caller's limits at the hub; later is fine.
	TooManyRequests Code = "too many requests"
	// Internal: a defect, or a code that this version does not know.
	Internal Code = "internal error"
)

// Hop is a place on the way from the program to the target.
type Hop string

// The hops.
const (
	HopClient Hop = "client"
	HopHub    Hop = "hub"
	// HopTunnel is the connection between two hops.
	HopTunnel Hop = "tunnel"
	HopAgent  Hop = "agent"
	HopTarget Hop = "target"
)

// Error is what went wrong at one of the hops. It is a [net.Error].
type Error struct {
	// Op is what was attempted, for example "dial".
	Op   string
	Code Code
	// Hop is where it failed.
	Hop Hop
	// Cluster and Target are where it led to, as far as known.
	Cluster, Target string
	// RequestID names it in the logs of every hop; may be empty.
	RequestID string
	// RetryAfter is what a caller may wait before another attempt; 0 says nothing.
	RetryAfter time.Duration
	// Err is the reason, without a credential. It is never nil.
	Err error

	// lasting is true where a connection has ended with it: it is no timeout then, after
	// which another Read may do better.
	lasting bool
}

// Error returns "hop: op: cluster: target: code: reason", leaving out what is empty.
func (e *Error) Error() string {
	parts := []string{string(e.Hop)}
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if e.Cluster != "" {
		parts = append(parts, "cluster "+e.Cluster)
	}
	if e.Target != "" {
		parts = append(parts, e.Target)
	}
	return strings.Join(append(parts, string(e.Code), e.Err.Error()), ": ")
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Is matches what package net or a context would have given: the thing itself may have
// happened at another hop.
func (e *Error) Is(target error) bool {
	switch target {
	case syscall.ECONNREFUSED:
		return e.Code == ConnectionRefused
	case syscall.ECONNRESET:
		return e.Code == ConnectionReset
	case context.Canceled:
		return e.Code == Canceled
	case context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return e.Timeout()
	default:
		return false
	}
}

// Timeout implements [net.Error]. The error of a connection that has ended is none, whatever
// its code.
func (e *Error) Timeout() bool { return e.Code == DeadlineExceeded && !e.lasting }

// Temporary implements [net.Error]; nothing is retried for it.
func (e *Error) Temporary() bool { return false }

var _ net.Error = (*Error)(nil)

// codeOf is what a code of the tunnel is called here. What a caller would do the same
// about is one code.
func codeOf(c wire.Code) Code {
	switch c = c.Known(); c {
	case wire.CodeDraining, wire.CodeReplaced:
		return LinkLost
	case wire.CodeProtocolError, wire.CodeFlowControlError, wire.CodeMisdirected:
		return Internal
	case wire.CodeRequestTooLarge:
		return InvalidTarget
	default:
		return Code(c.String())
	}
}

// away is what callers may wait for a cluster without an agent, which is back within
// that time after a restart.
const away = 2 * time.Second

// fromMux is the error of a session or of a link.
func fromMux(op, cluster, target string, e *mux.Error) *Error {
	out := &Error{Op: op, Code: codeOf(e.Code), Hop: Hop(e.Hop.String()), Cluster: cluster, Target: target, Err: reason{e}}
	if out.Code == Unavailable || out.Code == LinkLost {
		out.RetryAfter = away
	}
	return out
}

// reason is what a hop of the tunnel says, without what an [Error] has of it already.
type reason struct{ said *mux.Error }

func (r reason) Error() string { return cmp.Or(r.said.Message, "no reason was given") }

// Unwrap lets a splice see whose failure it is.
func (r reason) Unwrap() error { return r.said }

// fromStatus is the error of a hub that refuses the link.
func fromStatus(st *status.Status) *Error {
	out := &Error{Op: "connect", Hop: HopHub, Code: Internal, Err: errors.New(st.Message())}
	switch st.Code() {
	case codes.Unauthenticated:
		out.Code = Unauthenticated
	case codes.PermissionDenied:
		out.Code = PermissionDenied
	case codes.ResourceExhausted:
		out.Code, out.RetryAfter = TooManyRequests, away
	case codes.DeadlineExceeded:
		out.Code = DeadlineExceeded
	case codes.Unavailable:
		out.Code, out.RetryAfter = Unavailable, away
	case codes.Unimplemented:
		out.Err = errors.New("the hub does not take clients: it is older than this program")
	}
	return out
}

// tokenError says why there is no token.
func tokenError(err error) *Error {
	out := &Error{Op: "log in", Code: Unauthenticated, Hop: HopClient, Err: err}
	if e, ok := errors.AsType[*credential.Error](err); ok {
		out.Err = e
		return out // which is final, whatever it wraps
	}
	switch {
	case errors.Is(err, context.Canceled):
		out.Code = Canceled
	case errors.Is(err, context.DeadlineExceeded):
		out.Code = DeadlineExceeded
	}
	return out
}

// connectError says why there is no connection to the hub at address.
func connectError(address string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	cause := err
	if e, ok := errors.AsType[*mux.Error](err); ok && e.Cause != nil {
		cause = e.Cause
	}
	var stated interface{ GRPCStatus() *status.Status }
	if errors.As(cause, &stated) {
		// A connection that broke is no word of the hub's.
		if st := stated.GRPCStatus(); st.Code() != codes.Unavailable && st.Code() != codes.Canceled && st.Code() != codes.Internal && st.Code() != codes.Unknown {
			return fromStatus(st)
		}
	}
	out := &Error{Op: "connect to " + address, Code: Unreachable, Hop: HopTunnel, Err: cause}
	switch {
	case errors.Is(err, context.Canceled):
		out.Code = Canceled
	case isTLS(err):
		out.Code, out.Hop = TLSFailure, HopHub
	}
	return out
}

// isTLS tells an error of the handshake from one of the network.
func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// fatal tells that another attempt without a change of anything fails too.
func (e *Error) fatal() bool {
	return e.Code == Unauthenticated || e.Code == TLSFailure || e.Code == PermissionDenied || e.Code == InvalidTarget
}
