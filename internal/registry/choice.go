package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Choose returns the generation of the agent that a request to target should go to:
// of those that can reach it the one with the least under way. The request counts
// there until done is called, which has to be once. A session for it comes from
// [Registry.Cold] with [Prefer], or from a pool of those that the same agent has: so
// that what an agent has to do decides, and not how many sessions wait for it to
// have something. It waits and fails as [Registry.Open].
func (r *Registry) Choose(ctx context.Context, name string, target wire.Target) (generation uint64, done func(), err error) {
	a, err := r.pick(ctx, name, wanted{target: target, claim: true})
	if err != nil {
		return 0, nil, err
	}
	return a.Generation, sync.OnceFunc(func() { a.active.Add(-1) }), nil
}

type preferKey struct{}

// Prefer returns a context by which [Registry.Cold] opens its session to the agent
// of a generation, as long as that can take it, and else to another one.
func Prefer(ctx context.Context, generation uint64) context.Context {
	return context.WithValue(ctx, preferKey{}, generation)
}

func preferred(ctx context.Context) uint64 {
	generation, _ := ctx.Value(preferKey{}).(uint64)
	return generation
}

// wanted is what an agent is chosen for.
type wanted struct {
	target wire.Target
	// tried are passed over, and prefer goes before others where it is not 0.
	tried  []*mux.Link
	prefer uint64
	// claim counts a request; look is only whether there is an agent, and takes
	// nobody's turn.
	claim, look bool
}

// candidate is an agent that a session could go to now.
type candidate struct {
	*agent

	silent bool
	load   int
	// unready is why the agent cannot reach the target, as it says; nil when it can.
	unready *wire.Readiness
}

// silentAfter is when a link that says nothing is no longer trusted with new
// sessions: a ping and its answer are overdue.
const silentAfter = mux.DefaultKeepAlive + 2*time.Second

// candidate returns what is known of a now, and whether it takes sessions at all.
func (a *agent) candidate(w wanted) (c candidate, ok bool) {
	s := a.link.Stats()
	if s.Draining || slices.Contains(w.tried, a.link) {
		return candidate{}, false
	}
	c = candidate{agent: a, silent: s.Silent > silentAfter}
	// Sessions that carry requests count by those, whether or not one waits in a pool.
	c.load = max(s.Sessions-int(a.pooled.Load()), 0) + int(a.active.Load())
	if r := s.Peer.For(w.target); r != nil && !r.Ready {
		c.unready = r
	}
	return c, true
}

// before tells that a session should rather go to c than to other.
func (c candidate) before(other candidate, prefer uint64) bool {
	if a, b := c.unready == nil, other.unready == nil; a != b {
		return a
	}
	if c.silent != other.silent {
		return other.silent
	}
	if a, b := c.Generation == prefer, other.Generation == prefer; a != b {
		return a
	}
	if c.load != other.load {
		return c.load < other.load
	}
	// Equals take turns.
	return cmp.Or(cmp.Compare(c.chosen, other.chosen), cmp.Compare(other.Generation, c.Generation)) < 0
}

// best returns the agent that a new session goes to, or nil; refused is why, where
// there are agents and none of them can reach the target. The registry's mu is held.
func (c *cluster) best(w wanted) (best *agent, refused []*wire.Readiness) {
	if c == nil {
		return nil, nil
	}
	var first candidate
	for _, a := range c.agents {
		now, ok := a.candidate(w)
		if !ok {
			continue
		}
		if now.unready != nil {
			refused = append(refused, now.unready)
		}
		if first.agent == nil || now.before(first, w.prefer) {
			first = now
		}
	}
	if first.agent == nil || first.unready != nil {
		return nil, refused
	}
	if !w.look {
		c.turn++
		first.chosen = c.turn
	}
	if w.claim {
		first.active.Add(1)
	}
	return first.agent, nil
}

// Bounds of what is said of agents that cannot reach their API server.
const (
	maxReasons   = 3
	unreadyRetry = time.Second // agents look that often
)

// unready is the refusal where every agent says that it cannot reach the target.
func unready(name string, target wire.Target, why []*wire.Readiness) *fault.Error {
	f := &fault.Error{Hop: wire.HopTarget, Op: "route", Code: unreadyCode(why[0]), Cluster: name, Target: target.String()}
	var said []string
	for _, r := range why {
		if unreadyCode(r) != f.Code {
			f.Code = wire.CodeUnavailable
		}
		if text := cmp.Or(r.Message, "the agent cannot reach it"); len(said) < maxReasons && !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	if f.Code == wire.CodeUnavailable {
		f.RetryAfter = unreadyRetry
	}
	f.Err = errors.New(strings.Join(said, "; another agent: "))
	return f
}

// unreadyCode is what an agent may say about its API server.
func unreadyCode(r *wire.Readiness) wire.Code {
	if r.Code == wire.CodeTLSFailure {
		return r.Code
	}
	return wire.CodeUnavailable
}

// KubernetesFailure is why the agent cannot reach its API server, as it says; empty
// where it can, or says nothing.
func (a Agent) KubernetesFailure() string {
	r := a.Stats.Peer.For(wire.KubernetesAPI())
	if r == nil || r.Ready {
		return ""
	}
	return cmp.Or(r.Message, r.Code.String())
}
