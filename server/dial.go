package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Caller is on whose behalf a program that embeds a hub opens a session: a user of
// the hub, whom the program has authenticated.
type Caller struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// byProgram is the authentication in audit lines of what the embedding program
// does, by itself or for a caller whom it answers for.
const byProgram = identity.Method("program")

// dial returns a session for requests of the front end, which the first bytes of a
// request open.
func (s *Server) dial(ctx context.Context, cluster string, target wire.Target) (net.Conn, error) {
	id := answer.RequestID(ctx)
	ctx, opening := s.observer.StartOpen(ctx, telemetry.OpenStart{Cluster: cluster, Target: target, RequestID: id})
	request := mux.Request{Target: target, RequestID: id, Trace: telemetry.TraceParent(ctx)}
	conn, err := s.registry.Cold(registry.Prefer(ctx, https.ChosenAgent(ctx)), cluster, request, DefaultOpenTimeout, opening.End)
	if err != nil {
		opening.End(err)
		return nil, err
	}
	return conn, nil
}

// open opens a session, for as long as DefaultOpenTimeout, and returns the name of
// the agent that was asked. As much of first as may travels with the open, and the
// rest after it.
func (s *Server) open(ctx context.Context, cluster string, target wire.Target, first []byte) (*mux.Session, string, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultOpenTimeout)
	defer cancel()
	id := answer.RequestID(ctx)
	ctx, opening := s.observer.StartOpen(ctx, telemetry.OpenStart{Cluster: cluster, Target: target, RequestID: id})
	head := first[:min(len(first), registry.Ahead)]
	session, agent, err := s.registry.OpenWith(ctx, cluster, mux.Request{Target: target, RequestID: id, Trace: telemetry.TraceParent(ctx)}, head)
	opening.End(err)
	if err == nil && len(head) < len(first) {
		// The peer may grant less than this.
		stop := context.AfterFunc(ctx, func() { session.Reset(wire.CodeDeadlineExceeded, wire.HopHub, "the first bytes took too long") })
		defer stop()
		if _, err = session.Write(first[len(head):]); err != nil {
			session.Reset(wire.CodeCanceled, wire.HopHub, "the first bytes could not be written")
		}
	}
	return session, agent, err
}

// DialContext opens a raw TCP session from the named cluster's agent to address,
// which is host:port and resolved at the agent. The network is "tcp", "tcp4" or
// "tcp6".
//
// It is the privilege of the program that embeds the hub, as which it acts: the
// hub's policy and limits are for callers and are not asked, and the agent's policy
// decides alone. For a caller use [Server.DialAs]. Audit lines name the program as
// such. The returned connection has CloseWrite and CloseRead.
func (s *Server) DialContext(ctx context.Context, cluster, network, address string) (net.Conn, error) {
	target, err := tcpTarget(cluster, network, address)
	if err != nil {
		return nil, err
	}
	return s.openRaw(ctx, cluster, target, nil)
}

// DialAs is [Server.DialContext] on behalf of a caller: the hub's policy has to
// allow the address to them, and their limits hold. A refusal is told as such, and
// names the rule that denied or that would allow it.
func (s *Server) DialAs(ctx context.Context, caller Caller, cluster, network, address string) (net.Conn, error) {
	target, err := tcpTarget(cluster, network, address)
	if err != nil {
		return nil, err
	}
	if caller.Name == "" {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeUnauthenticated, Cluster: cluster, Target: target.String(),
			Err: errors.New("the caller has no name: DialContext is for the program itself")}
	}
	return s.openRaw(ctx, cluster, target, &user.DefaultInfo{
		Name: caller.Name, UID: caller.UID, Groups: caller.Groups, Extra: caller.Extra,
	})
}

// Service names a service of a cluster. Port is a number, a name, or empty for the
// service's own; Scheme is "http" or "https", empty for "https".
type Service struct{ Namespace, Name, Port, Scheme string }

// DialService opens a session to a service, by which the agent takes requests in
// HTTP/1.1, one after the other, and sends them on as the scheme says. It is the
// privilege of the embedding program, as [Server.DialContext] is.
func (s *Server) DialService(ctx context.Context, cluster string, service Service) (net.Conn, error) {
	target := wire.Service(service.Namespace, service.Name, service.Port, cmp.Or(service.Scheme, "https"))
	if err := route.CheckTarget(target); err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeInvalidTarget, Cluster: cluster, Err: errors.Unwrap(err)}
	}
	return s.openRaw(ctx, cluster, target, nil)
}

func tcpTarget(cluster, network, address string) (wire.Target, error) {
	invalid := func(err error) error {
		return &fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeInvalidTarget, Cluster: cluster, Target: address, Err: err}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return wire.Target{}, invalid(fmt.Errorf("network %q where tcp is wanted", network))
	}
	// In the one spelling that rules are held against.
	target, err := route.ParseAddress(address)
	if err != nil {
		return wire.Target{}, invalid(err)
	}
	return target, nil
}

// openRaw opens a session for the embedding program, for a caller it answers for or,
// without one, for itself.
func (s *Server) openRaw(ctx context.Context, cluster string, target wire.Target, caller user.Info) (net.Conn, error) {
	ctx = answer.WithID(ctx)
	if err := s.audit.Admit(ctx); err != nil {
		return nil, err
	}
	r := &rawSession{s: s, Session: &front.Session{
		Cluster: cluster, Target: target, Caller: identity.Caller{User: caller, Method: byProgram}, Start: time.Now(),
	}}
	stream, err := r.open(ctx, caller != nil)
	if err != nil {
		return nil, err
	}
	return stream, nil
}
