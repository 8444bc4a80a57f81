package balance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Status is what is known of one endpoint.
type Status struct {
	Address string
	// Failed tells that it gets no work; Since is when that began or ended.
	Failed bool
	Since  time.Time
	// Probed tells that a probe has ended.
	Probed bool
	// FailedProbes counts those in a row, up to Config.Fall.
	FailedProbes int
	// Err is the last failure, also of an endpoint that works; nil after a good
	// probe.
	Err error
	// Outstanding is the work under way, Total what there ever was.
	Outstanding int
	Total       uint64
}

// State is a snapshot of a [Set].
type State struct {
	// Ready tells that at least one endpoint works.
	Ready bool
	// Endpoints are in the order of the configuration.
	Endpoints []Status
	// Lookup is why a name has no addresses, where there are no endpoints.
	Lookup error
}

// State returns a snapshot.
func (s *Set) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state()
}

// state is called with mu held.
func (s *Set) state() State {
	out := State{Endpoints: make([]Status, 0, len(s.endpoints)), Lookup: s.lookupErr}
	for _, e := range s.endpoints {
		out.Endpoints = append(out.Endpoints, Status{
			Address: e.address, Failed: e.failed, Since: e.since, Probed: e.known,
			FailedProbes: min(e.bad, s.cfg.Fall), Err: e.err, Outstanding: e.outstanding, Total: e.total,
		})
		out.Ready = out.Ready || !e.failed
	}
	return out
}

// Bounds of what is said, in endpoints and in bytes.
const (
	maxNamed  = 4
	maxReason = 160
)

// Why says in one line which endpoints failed, and how: "10.0.0.1:6443: connection
// refused (3 probes failed); …". It is bounded, and empty where none has failed.
func (s State) Why() string {
	var parts []string
	more := 0
	for _, e := range s.Endpoints {
		switch {
		case !e.Failed:
			continue
		case len(parts) == maxNamed:
			more++
			continue
		}
		parts = append(parts, e.why())
	}
	if more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	if len(s.Endpoints) == 0 && s.Lookup != nil {
		parts = append(parts, Reason(s.Lookup))
	}
	return strings.Join(parts, "; ")
}

func (s Status) why() string {
	text := s.Address + ": " + Reason(s.Err)
	switch s.FailedProbes {
	case 0:
	case 1:
		text += " (1 probe failed)"
	default:
		text += fmt.Sprintf(" (%d probes failed)", s.FailedProbes)
	}
	return text
}

// NoneError says that no endpoint works.
type NoneError struct{ State State }

// Error implements error.
func (e *NoneError) Error() string {
	if why := e.State.Why(); why != "" {
		return "no endpoint is healthy: " + why
	}
	return "no endpoint is healthy"
}

// Unwrap returns the failures of the endpoints.
func (e *NoneError) Unwrap() []error {
	var all []error
	for _, s := range e.State.Endpoints {
		if s.Err != nil {
			all = append(all, s.Err)
		}
	}
	if e.State.Lookup != nil {
		all = append(all, e.State.Lookup)
	}
	return all
}

// Reason says what went wrong without saying where, in one bounded line: "connection
// refused", "timed out", or the error's own words.
func Reason(err error) string {
	var (
		errno   syscall.Errno
		dns     *net.DNSError
		timeout net.Error
	)
	text := "failed"
	switch {
	case err == nil:
	case errors.As(err, &dns) && dns.IsNotFound:
		text = "no such name " + dns.Name
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		text = "timed out"
	case errors.As(err, &errno):
		text = errno.Error()
	default:
		text = err.Error()
	}
	return oneLine(text)
}

// oneLine keeps what an endpoint says, such as a name in its certificate, from
// making lines of its own, or long ones.
func oneLine(text string) string {
	text = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text), "\uFFFD")
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}
