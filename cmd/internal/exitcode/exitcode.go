// Package exitcode says with which exit code the command culvert ends, so that scripts
// can tell what went wrong, and the one line that it says then. The table is here and
// nowhere else: [Codes].
package exitcode

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/profile"
)

// The codes. They do not change.
const (
	OK              = 0
	Failure         = 1
	Usage           = 2
	HubUnreachable  = 3
	HubUnverified   = 4
	Unauthenticated = 5
	Forbidden       = 6
	NotFound        = 7
	Unavailable     = 8
	Target          = 9
	Interrupted     = 130
)

// Code is an exit code and what it says.
type Code struct {
	Code int
	// Meaning is for people.
	Meaning string
	// Remedy is said behind an error that has none of its own.
	Remedy string
}

// Codes are all codes, in order.
var Codes = []Code{
	{OK, "success", ""},
	{Failure, "any other failure", ""},
	{Usage, "the command line is wrong, and nothing was done", ""},
	{HubUnreachable, "the hub cannot be reached", "check that the hub runs, and its address (culvert profiles show)"},
	{HubUnverified, "the hub cannot be verified: its certificate is not one that its CA, or the system, vouches for", "give the hub's CA with --hub-ca, or log in again with culvert login"},
	{Unauthenticated, "you are not logged in, your login has expired, or the hub does not take your credential", "run culvert login, or renew your token"},
	{Forbidden, "you may not: a policy, or the cluster's RBAC, forbids it", "culvert whoami says who you are; ask who runs the hub or the cluster"},
	{NotFound, "there is no cluster, host or profile of that name", "culvert clusters list shows those that you may reach"},
	{Unavailable, "it may work later: no agent of the cluster is connected, a connection was lost, or a limit is reached", "try again later; culvert clusters list shows which are connected"},
	{Target, "the target behind the agent refused the connection or cannot be reached", "check that it runs and listens there"},
	{Interrupted, "it was interrupted by a signal", ""},
}

// Table is the codes as a text.
func Table() string {
	var b strings.Builder
	b.WriteString("culvert ends with one of these exit codes, and on a failure with one line on standard\nerror that says what is wrong and what to do. They do not change.\n\n")
	for _, c := range Codes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.Code, c.Meaning)
	}
	return b.String()
}

// Error is an error with its code.
type Error struct {
	Code int
	Err  error
	// Complete is for an error that says itself what to do.
	Complete bool
}

// Error says what is wrong.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Exit is e's code.
func (e *Error) Exit() int { return e.Code }

// coder is an error that knows its code, such as that of a wrong command line. The
// method is not called ExitCode: an exec.ExitError in the chain is of another program.
type coder interface {
	error
	Exit() int
}

// Of returns the code of an error; nil is [OK].
func Of(err error) int {
	if err == nil {
		return OK
	}
	if own, ok := errors.AsType[coder](err); ok {
		return own.Exit()
	}
	if missing, ok := errors.AsType[*profile.MissingError](err); ok {
		if missing.Name == "" {
			return Unauthenticated
		}
		return NotFound
	}
	if errors.As(err, new(*credential.Error)) {
		return Unauthenticated
	}
	if refusal, ok := errors.AsType[*answer.RefusalError](err); ok {
		return ofRefusal(refusal)
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return of(string(e.Code), string(e.Hop))
	}
	if f := fault.As(err); f != nil {
		return of(f.Code.String(), f.Hop.String())
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return Failure
}

// of is the code of an error of one of the hops, by the names of docs/protocol.md.
func of(code, hop string) int {
	behind := hop == "agent" || hop == "target"
	switch code {
	case "canceled":
		return Interrupted
	case "invalid target":
		return Usage
	case "unauthenticated":
		return Unauthenticated
	case "permission denied":
		return Forbidden
	case "not found":
		return NotFound
	case "unavailable", "link lost", "draining", "replaced", "resource exhausted", "too many requests":
		return Unavailable
	case "tls failure":
		if behind {
			return Target
		}
		return HubUnverified
	case "connection reset":
		if behind || hop == "tunnel" { // in the tunnel it is the word of who is behind it
			return Target
		}
		return HubUnreachable
	case "connection refused", "unreachable", "deadline exceeded":
		if behind {
			return Target
		}
		return HubUnreachable
	}
	return Failure
}

// ofRefusal is the code of an answer over HTTP: of the hub by its own code, of a target
// by the status.
func ofRefusal(r *answer.RefusalError) int {
	if r.Code != "" {
		return of(r.Code, r.Hop)
	}
	switch r.Status {
	case 401:
		return Unauthenticated
	case 403:
		return Forbidden
	case 404:
		return NotFound
	case 409, 429, 503:
		return Unavailable
	case 502, 504:
		return Target
	}
	return Failure
}

// Text is what an error says, on one line.
func Text(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Line is what is said of an error: one line that says what is wrong and what to do. Only
// what a hub says in several lines, which are there to be pasted, stays as it is.
func Line(err error) string {
	if refusal, ok := errors.AsType[*answer.RefusalError](err); ok && strings.Contains(refusal.Message, "\n") {
		return err.Error()
	}
	text := Text(err)
	if own, ok := errors.AsType[*Error](err); ok && own.Complete {
		return text
	}
	// Those of a login say what to do.
	if errors.As(err, new(*profile.MissingError)) || errors.As(err, new(*credential.Error)) {
		return text
	}
	code := Of(err)
	for _, c := range Codes {
		if c.Code == code && c.Remedy != "" {
			return text + ": " + c.Remedy
		}
	}
	return text
}
