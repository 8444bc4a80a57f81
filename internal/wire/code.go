package wire

// Code says why something failed. The values are those of enum Code in
// proto/culvert/v1; an unknown value is treated as [CodeInternal].
type Code uint32

// The codes of revision 1, documented in proto/culvert/v1.
const (
	CodeUnspecified       Code = 0
	CodeCanceled          Code = 1
	CodeDeadlineExceeded  Code = 2
	CodeInvalidTarget     Code = 3
	CodeNotFound          Code = 4
	CodePermissionDenied  Code = 5
	CodeConnectionRefused Code = 6
	CodeUnreachable       Code = 7
	CodeTLSFailure        Code = 8
	CodeResourceExhausted Code = 9
	CodeDraining          Code = 10
	CodeLinkLost          Code = 11
	CodeConnectionReset   Code = 12
	CodeProtocolError     Code = 13
	CodeFlowControlError  Code = 14
	CodeReplaced          Code = 15
	CodeInternal          Code = 16
	CodeUnauthenticated   Code = 17
	CodeUnavailable       Code = 18
	CodeTooManyRequests   Code = 19
	CodeRequestTooLarge   Code = 20
	CodeMisdirected       Code = 21
)

var codeNames = [...]string{
	CodeUnspecified: "unspecified", CodeCanceled: "canceled", CodeDeadlineExceeded: "deadline exceeded",
	CodeInvalidTarget: "invalid target", CodeNotFound: "not found", CodePermissionDenied: "permission denied",
	CodeConnectionRefused: "connection refused", CodeUnreachable: "unreachable", CodeTLSFailure: "tls failure",
	CodeResourceExhausted: "resource exhausted", CodeDraining: "draining", CodeLinkLost: "link lost",
	CodeConnectionReset: "connection reset", CodeProtocolError: "protocol error",
	CodeFlowControlError: "flow control error", CodeReplaced: "replaced", CodeInternal: "internal error",
	CodeUnauthenticated: "unauthenticated", CodeUnavailable: "unavailable",
	CodeTooManyRequests: "too many requests", CodeRequestTooLarge: "request too large",
	CodeMisdirected: "misdirected",
}

// Known returns c, or [CodeInternal] when this revision does not know c.
func (c Code) Known() Code {
	if c == CodeUnspecified || int(c) >= len(codeNames) {
		return CodeInternal
	}
	return c
}

// String returns the code in words, for example "connection refused".
func (c Code) String() string {
	if int(c) >= len(codeNames) {
		return "internal error"
	}
	return codeNames[c]
}

// Hop is a place on the way from the caller to the target. The values are those
// of enum Hop in proto/culvert/v1.
type Hop uint32

// The hops of revision 1.
const (
	HopUnspecified Hop = 0
	HopClient      Hop = 1
	HopHub         Hop = 2
	HopPeerHub     Hop = 3
	HopLink        Hop = 4
	HopAgent       Hop = 5
	HopTarget      Hop = 6
)

var hopNames = [...]string{
	HopUnspecified: "unknown hop", HopClient: "client", HopHub: "hub", HopPeerHub: "peer hub",
	HopLink: "tunnel", HopAgent: "agent", HopTarget: "target",
}

// String returns the hop in words, for example "agent".
func (h Hop) String() string {
	if int(h) >= len(hopNames) {
		return hopNames[0]
	}
	return hopNames[h]
}
