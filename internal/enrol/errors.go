package enrol

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

// Error is what a hub says when it issues no certificate.
type Error struct {
	// Reason is what programs branch on.
	Reason culvertv1.EnrolmentReason
	// Code is the status of the call.
	Code codes.Code
	// Message is one sentence for people that says what to do.
	Message string
	// RetryAfter is set where the same call may have success later.
	RetryAfter time.Duration
}

// Error returns the hub's sentence.
func (e *Error) Error() string { return "the hub refused: " + e.Message }

// Temporary tells whether the same call may have success later.
func (e *Error) Temporary() bool {
	switch e.Code {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted:
		return true
	default:
		return false
	}
}

// explain makes an *Error of what a call returned.
func explain(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: oneLine(st.Message())}
	for _, detail := range st.Details() {
		if failure, ok := detail.(*culvertv1.EnrolmentFailure); ok {
			e.Reason = failure.GetReason()
			e.RetryAfter = max(failure.GetRetryAfter().AsDuration(), 0)
		}
	}
	if e.Reason == culvertv1.EnrolmentReason_ENROLMENT_REASON_UNSPECIFIED && e.Code == codes.Unimplemented {
		e.Message = "it does not know this call, so it is older than the agent, or not a hub: " + e.Message
	}
	return e
}

// maxSentence bounds what of the hub's words gets into an error, in bytes.
const maxSentence = 1024

// oneLine bounds a peer's text and keeps it printable.
func oneLine(text string) string {
	if len(text) > maxSentence {
		text = text[:maxSentence] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, text)
}
