// Package registry knows which agent is connected where, and opens sessions to
// clusters.
//
// A cluster has any number of links. Links of one agent process have a
// generation: a newer one takes the place of an older, which gets no new session
// even before its end has been noticed.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Agent describes one connected agent.
type Agent struct {
	Cluster string
	// Name is what operators call the agent: its pod or its host. The agent says so
	// itself; of the connected agents of a cluster no two have one name, see
	// [Registry.Add].
	Name string
	// Instance is the agent's process, as it names itself.
	Instance string
	Version  string
	// Labels are what the agent says of itself.
	Labels map[string]string
	// Given are the labels that the hub gave to the cluster, which nobody changes;
	// nil where they are not known.
	Given  map[string]string
	Remote net.Addr
	Since  time.Time
	// Generation rises with every link that the registry has seen.
	Generation uint64
	Stats      mux.Stats
}

// Config sets up a [Registry].
type Config struct {
	// Known tells whether a cluster that is not connected exists. An error is
	// told to the caller as unavailable.
	Known func(cluster string) (bool, error)
	// Wait is how long a request waits for a known cluster to come back.
	// Default 1 s.
	Wait time.Duration
	// RetryAfter is what callers of an absent cluster are told. Default 2 s.
	RetryAfter time.Duration
}

// Registry is safe for concurrent use.
type Registry struct {
	cfg Config

	mu         sync.Mutex
	generation uint64
	clusters   map[string]*cluster
	changed    chan struct{} // closed when an agent comes or goes, and then made anew
}

type cluster struct {
	agents []*agent
	// arrived is closed when an agent connects, and then made anew.
	arrived chan struct{}
	turn    uint64 // rises with each choice
}

type agent struct {
	Agent

	link *mux.Link
	// pooled counts sessions that carry requests, one after the other, and active the
	// requests that are under way.
	pooled, active atomic.Int64
	chosen         uint64 // the cluster's turn when it was last; guarded by the registry's mu
}

// New returns an empty registry.
func New(cfg Config) *Registry {
	cfg.Wait = cmp.Or(cfg.Wait, time.Second)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, 2*time.Second)
	return &Registry{cfg: cfg, clusters: make(map[string]*cluster), changed: make(chan struct{})}
}

// Changed returns what is closed when an agent comes or goes after the call.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// tell closes changed. mu is held.
func (r *Registry) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Ping measures the round trip to an agent of a cluster, and returns the agent. It waits
// for one and fails as [Registry.Open].
func (r *Registry) Ping(ctx context.Context, name string) (Agent, time.Duration, error) {
	a, err := r.pick(ctx, name, wanted{look: true})
	if err != nil {
		return Agent{}, 0, err
	}
	rtt, err := a.link.Ping(ctx)
	if err != nil {
		return a.Agent, 0, toFault(err, name, wire.Target{})
	}
	return a.Agent, rtt, nil
}

// Add enters a link; Cluster, Name, Instance, Version, Labels, Given and Remote of a
// count. A name that is missing, too long or another agent's is completed, and
// [Registry.Agents] has what came of it. Older links of the same instance are
// drained with code REPLACED. The caller must call remove when the link has ended.
func (r *Registry) Add(a Agent, link *mux.Link) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generation++
	a.Generation, a.Since = r.generation, time.Now()
	c := r.clusters[a.Cluster]
	if c == nil {
		c = &cluster{arrived: make(chan struct{})}
		r.clusters[a.Cluster] = c
	}
	entry := &agent{Agent: a, link: link}
	for _, old := range c.agents {
		if old.Instance == a.Instance && a.Instance != "" {
			go replace(old.link)
		}
	}
	c.agents = slices.DeleteFunc(c.agents, func(old *agent) bool {
		return old.Instance == a.Instance && a.Instance != ""
	})
	entry.Name = c.nameFor(a)
	c.agents = append(c.agents, entry)
	close(c.arrived)
	c.arrived = make(chan struct{})
	r.tell()
	return func() { r.remove(entry) }
}

// replaceGrace is how long sessions of a replaced link may go on: its agent has
// a newer one, so they are likely to be dead.
const replaceGrace = 10 * time.Second

// replace drains a link whose agent has a newer one. It ends with the link or
// after replaceGrace.
func replace(l *mux.Link) {
	ctx, cancel := context.WithTimeout(context.Background(), replaceGrace)
	defer cancel()
	_ = l.Drain(ctx, wire.CodeReplaced, "a newer link of the same agent took its place") // the sessions left were told
}

func (r *Registry) remove(entry *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clusters[entry.Cluster]
	c.agents = slices.DeleteFunc(c.agents, func(a *agent) bool { return a == entry })
	r.tell()
}

// Agents returns the connected agents of a cluster, or of all clusters when the
// name is empty, oldest first.
func (r *Registry) Agents(name string) []Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Agent
	for key, c := range r.clusters {
		if name != "" && key != name {
			continue
		}
		for _, a := range c.agents {
			snapshot := a.Agent
			snapshot.Stats = a.link.Stats()
			out = append(out, snapshot)
		}
	}
	slices.SortFunc(out, func(a, b Agent) int { return cmp.Compare(a.Generation, b.Generation) })
	return out
}

// Labels returns the labels that the hub gave to a connected cluster, and whether
// they are known here. The caller does not change them.
func (r *Registry) Labels(name string) (labels map[string]string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clusters[name]
	if c == nil || len(c.agents) == 0 {
		return nil, false
	}
	labels = c.agents[len(c.agents)-1].Given
	return labels, labels != nil
}

// Open opens a session to a target in a cluster. It prefers the agent with the
// least under way, passes agents over that drain, are silent, or say that they
// cannot reach the target, and tries another agent when one refuses for a reason of
// its own. Where all agents say so it fails at once, with the reason. A failure is a
// [*fault.Error]. The name is that of the agent which has the session or was the
// last to be asked for it, empty where none was.
func (r *Registry) Open(ctx context.Context, name string, req mux.Request) (s *mux.Session, asked string, err error) {
	return r.openBy(ctx, name, req, func(a *agent) (*mux.Session, error) { return a.link.Open(ctx, req) })
}

// openBy opens a session by open on one link after the other.
func (r *Registry) openBy(ctx context.Context, name string, req mux.Request, open func(*agent) (*mux.Session, error)) (*mux.Session, string, error) {
	w := wanted{target: req.Target, prefer: preferred(ctx)}
	asked := ""
	for {
		a, err := r.pick(ctx, name, w)
		if err != nil {
			return nil, asked, err
		}
		asked = a.Name
		s, err := open(a)
		if err == nil {
			return s, asked, nil
		}
		if ctx.Err() == nil && retryable(err, len(req.Payload) == 0) && len(w.tried) < maxTries {
			w.tried = append(w.tried, a.link)
			continue
		}
		return nil, asked, toFault(err, name, req.Target)
	}
}

// maxTries bounds how many links one Open tries.
const maxTries = 4

// retryable tells that another link may do and that nothing of the caller's has
// reached a target: the open was never sent, or carried no bytes.
func retryable(err error, empty bool) bool {
	var e *mux.Error
	if !errors.As(err, &e) || !e.Refused && !empty {
		return false
	}
	switch e.Code {
	case wire.CodeDraining, wire.CodeReplaced, wire.CodeLinkLost:
		return true
	default:
		return false
	}
}

// pick chooses an agent that was not tried, waiting a bounded time for one.
func (r *Registry) pick(ctx context.Context, name string, w wanted) (*agent, error) {
	var timeout <-chan time.Time
	for {
		r.mu.Lock()
		c := r.clusters[name]
		if a, refused := c.best(w); a != nil || len(refused) > 0 {
			r.mu.Unlock()
			if a == nil {
				return nil, unready(name, w.target, refused)
			}
			return a, nil
		}
		if c == nil {
			r.mu.Unlock()
			known, err := r.cfg.Known(name)
			if err != nil {
				return nil, &fault.Error{Hop: wire.HopHub, Op: "look up", Code: wire.CodeUnavailable, Cluster: name, Err: err}
			}
			if !known {
				return nil, &fault.Error{
					Hop: wire.HopHub, Op: "route", Code: wire.CodeNotFound, Cluster: name,
					Err: fmt.Errorf("no cluster named %q has joined this hub", name),
				}
			}
			r.mu.Lock()
			if c = r.clusters[name]; c == nil {
				c = &cluster{arrived: make(chan struct{})}
				r.clusters[name] = c
			}
		}
		arrived := c.arrived
		again := c.takes(w)
		r.mu.Unlock()
		if again {
			continue
		}
		if timeout == nil {
			timeout = time.After(r.cfg.Wait)
		}
		select {
		case <-arrived:
		case <-timeout:
			return nil, &fault.Error{
				Hop: wire.HopHub, Op: "route", Code: wire.CodeUnavailable, Cluster: name, RetryAfter: r.cfg.RetryAfter,
				Err: fmt.Errorf("no agent of the cluster is connected; waited %v", r.cfg.Wait),
			}
		case <-ctx.Done():
			return nil, toFault(context.Cause(ctx), name, wire.Target{})
		}
	}
}

// takes tells that there is an agent to look at.
func (c *cluster) takes(w wanted) bool {
	return slices.ContainsFunc(c.agents, func(a *agent) bool {
		_, ok := a.candidate(w)
		return ok
	})
}

// linkRetry is what callers are told to wait after a link was lost: an agent is back
// within that time after a restart.
const linkRetry = time.Second

// toFault gives a failed open the form that callers see.
func toFault(err error, name string, target wire.Target) *fault.Error {
	f := &fault.Error{Hop: wire.HopHub, Op: "open", Code: wire.CodeInternal, Cluster: name, Err: err}
	if target.Kind != wire.TargetUnknown {
		f.Target = target.String()
	}
	var e *mux.Error
	switch {
	case errors.As(err, &e):
		f.Hop, f.Code, f.Err = e.Hop, e.Code.Known(), errors.New(e.Message)
		switch f.Code {
		case wire.CodeLinkLost, wire.CodeReplaced, wire.CodeDraining:
			f.RetryAfter = linkRetry
		}
	case errors.Is(err, context.DeadlineExceeded):
		f.Code = wire.CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		f.Code = wire.CodeCanceled
	}
	return f
}
