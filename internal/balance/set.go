package balance

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Set is the endpoints of one thing. It is safe for concurrent use.
type Set struct {
	cfg Config
	// resolved is closed once there are endpoints, or a reason why there are none.
	resolved chan struct{}
	wake     chan struct{} // has Run look what is due
	telling  sync.Mutex    // orders the calls of Changed

	mu        sync.Mutex
	endpoints []*endpoint
	turn      int    // rises with each choice
	lookupErr error  // of the last lookup, while there are no endpoints
	told      *State // what Changed was told last
}

// endpoint is one address. Its fields but address are guarded by the Set's mu.
type endpoint struct {
	address     string
	outstanding int
	total       uint64
	failed      bool
	known       bool // a probe has ended
	good, bad   int  // probes in a row
	err         error
	since       time.Time // it failed or came back
	due         time.Time // of its next probe
	asked       time.Time // its last probe began
	probing     bool
}

// New returns a Set whose endpoints count as working. Somebody should call
// [Set.Run].
func New(cfg Config) (*Set, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Endpoints = slices.Clone(cfg.Endpoints)
	s := &Set{cfg: cfg, resolved: make(chan struct{}), wake: make(chan struct{}, 1)}
	if !s.hasNames() {
		s.replace(cfg.Endpoints)
		close(s.resolved)
	}
	return s, nil
}

// Lease is one piece of work at an endpoint. Its methods are safe for concurrent
// use.
type Lease struct {
	set  *Set
	at   *endpoint
	once sync.Once
}

// Address is the endpoint's, host:port.
func (l *Lease) Address() string { return l.at.address }

// Done ends the work; calls after the first do nothing.
func (l *Lease) Done() {
	l.once.Do(func() {
		l.set.mu.Lock()
		defer l.set.mu.Unlock()
		l.at.outstanding--
	})
}

// Failed says that the endpoint could not be connected to: it gets no new work
// until a probe was good. It does not end the work.
func (l *Lease) Failed(err error) { l.set.eject(l.at, err) }

// Suspect says that a connection to the endpoint broke: it is probed at once.
func (l *Lease) Suspect() {
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	l.set.hurry(l.at)
}

// Pick returns an endpoint that works and is none of those tried, with work under
// way there from now on: the caller calls [Lease.Done] when it is over. Where none
// works it fails at once with a [*NoneError]. It waits, for no longer than ctx
// lasts, only until a name was looked up the first time.
func (s *Set) Pick(ctx context.Context, tried ...*Lease) (*Lease, error) {
	select {
	case <-s.resolved:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.choose(tried)
	if at == nil {
		for _, e := range s.endpoints {
			s.hurry(e)
		}
		return nil, &NoneError{State: s.state()}
	}
	at.outstanding++
	at.total++
	return &Lease{set: s, at: at}, nil
}

// Several tells that there is more than one endpoint, whether they work or not.
func (s *Set) Several() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.endpoints) > 1
}

// Probes tells that endpoints are asked whether they work.
func (s *Set) Probes() bool { return s.cfg.Probe != nil }

// choose is called with mu held.
func (s *Set) choose(tried []*Lease) *endpoint {
	usable := make([]*endpoint, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		if !e.failed && !slices.ContainsFunc(tried, func(l *Lease) bool { return l.at == e }) {
			usable = append(usable, e)
		}
	}
	if len(usable) == 0 {
		return nil
	}
	s.turn++
	switch s.cfg.Method {
	case RoundRobin:
		return usable[s.turn%len(usable)]
	case Random2:
		a := rand.IntN(len(usable)) //nolint:gosec // spreads load, and guards nothing
		b := a
		if len(usable) > 1 {
			b = (a + 1 + rand.IntN(len(usable)-1)) % len(usable) //nolint:gosec // the same
		}
		if usable[b].outstanding < usable[a].outstanding {
			return usable[b]
		}
		return usable[a]
	default:
		var best *endpoint
		for i := range usable {
			// The one whose turn it is comes first among equals.
			e := usable[(s.turn+i)%len(usable)]
			if best == nil || e.outstanding < best.outstanding {
				best = e
			}
		}
		return best
	}
}

// eject takes an endpoint out.
func (s *Set) eject(e *endpoint, err error) {
	if s.cfg.Probe == nil {
		return // nothing would bring it back
	}
	s.mu.Lock()
	e.err = err
	e.good = 0
	if !e.failed {
		e.failed, e.since = true, time.Now()
		s.cfg.Logger.Warn("endpoint failed, it gets no new requests", "endpoint", e.address, "reason", Reason(err))
	}
	s.hurry(e)
	s.mu.Unlock()
	s.tell()
}

// replace takes the addresses of a lookup over. Endpoints that go on keep what is
// known of them. mu is held, or nobody else knows the Set.
func (s *Set) replace(addresses []string) {
	addresses = addresses[:min(len(addresses), MaxEndpoints)]
	next := make([]*endpoint, 0, len(addresses))
	for _, address := range addresses {
		if slices.ContainsFunc(next, func(e *endpoint) bool { return e.address == address }) {
			continue
		}
		i := slices.IndexFunc(s.endpoints, func(e *endpoint) bool { return e.address == address })
		if i >= 0 {
			next = append(next, s.endpoints[i])
			continue
		}
		next = append(next, &endpoint{address: address, since: time.Now()})
	}
	s.endpoints = next
}
