package mux

import (
	"net"
	"strings"
	"syscall"

	"github.com/culvertdev/culvert/internal/wire"
)

// Error says why a session was refused or reset, or why a link ended.
//
// errors.Is matches [syscall.ECONNRESET] for CodeConnectionReset,
// [syscall.ECONNREFUSED] for CodeConnectionRefused, and Timeout reports
// CodeDeadlineExceeded, so that callers that know only package net do the right
// thing.
type Error struct {
	Code wire.Code
	Hop  wire.Hop
	// Message is one sentence for people; it may be empty.
	Message string
	// Refused tells that the session was never opened, so that trying another
	// link is safe.
	Refused bool
	// Cause is what the transport said, where that ended the link; nil else. It is not
	// unwrapped: a stream's own end means something else on a session.
	Cause error
}

// Error returns "hop: code: message".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Hop.String())
	b.WriteString(": ")
	b.WriteString(e.Code.String())
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	return b.String()
}

// Is matches the errno that a TCP connection would have given.
func (e *Error) Is(target error) bool {
	switch target {
	case syscall.ECONNRESET:
		return e.Code == wire.CodeConnectionReset
	case syscall.ECONNREFUSED:
		return e.Code == wire.CodeConnectionRefused
	default:
		return false
	}
}

// Timeout implements [net.Error].
func (e *Error) Timeout() bool { return e.Code == wire.CodeDeadlineExceeded }

// Temporary implements [net.Error]; it is never used to retry.
func (e *Error) Temporary() bool { return false }

var _ net.Error = (*Error)(nil)

// errStopped is what Write returns once the peer reads no more.
var errStopped = &stoppedError{}

type stoppedError struct{}

func (*stoppedError) Error() string   { return "broken pipe: the peer closed its reading side" }
func (*stoppedError) Is(t error) bool { return t == syscall.EPIPE }

func protocolError(message string) *Error {
	return &Error{Code: wire.CodeProtocolError, Hop: wire.HopLink, Message: message}
}
