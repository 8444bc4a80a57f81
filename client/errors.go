package client

import (
	"errors"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
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
}
