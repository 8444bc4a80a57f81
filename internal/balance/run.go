package balance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// quick is the time between two probes of an endpoint that has failed or is about
	// to, unless the interval is shorter.
	quick = time.Second
	// hurried is the least time between two probes of one endpoint, whoever asks.
	hurried = 250 * time.Millisecond
)

// Run probes the endpoints and looks names up until ctx ends, and returns when all
// that it began has ended. It is called once.
func (s *Set) Run(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	if s.hasNames() {
		under.Go(func() { s.follow(ctx) })
	}
	if s.cfg.Probe == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		due, next := s.takeDue(time.Now())
		for _, e := range due {
			under.Go(func() { s.probe(ctx, e) })
		}
		timer.Reset(next)
	}
}

// takeDue returns the endpoints that are to be probed now, and in how long the next
// one is.
func (s *Set) takeDue(now time.Time) (due []*endpoint, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = s.cfg.Interval
	for _, e := range s.endpoints {
		switch {
		case e.probing: // its end wakes the loop
		case !e.due.After(now):
			e.probing, e.asked = true, now
			due = append(due, e)
		default:
			next = min(next, e.due.Sub(now))
		}
	}
	return due, next
}

// hurry has an endpoint that failed, or may have, probed as soon as that is not too
// often. mu is held.
func (s *Set) hurry(e *endpoint) {
	if s.cfg.Probe == nil {
		return
	}
	if soon := e.asked.Add(hurried); soon.Before(e.due) {
		e.due = soon
	}
	s.notify()
}

func (s *Set) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// probe asks one endpoint once.
func (s *Set) probe(ctx context.Context, e *endpoint) {
	limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	err := s.cfg.Probe(limited, e.address)
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", s.cfg.Timeout, context.DeadlineExceeded)
	}
	cancel()
	if ctx.Err() != nil {
		return // told to end, which says nothing of the endpoint
	}
	s.judge(e, err)
	s.notify()
	s.tell()
}

// judge counts the result of a probe.
func (s *Set) judge(e *endpoint, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	first := !e.known
	e.probing, e.known, e.err = false, true, err
	if err == nil {
		e.good, e.bad = min(e.good+1, s.cfg.Rise), 0
		if e.failed && e.good >= s.cfg.Rise {
			s.cfg.Logger.Info("endpoint is back", "endpoint", e.address, "after", now.Sub(e.since).Round(time.Millisecond))
			e.failed, e.since = false, now
		}
	} else {
		e.good, e.bad = 0, min(e.bad+1, s.cfg.Fall)
		if !e.failed && (first || e.bad >= s.cfg.Fall) {
			s.cfg.Logger.Warn("endpoint failed, it gets no new requests", "endpoint", e.address, "reason", Reason(err), "probes", e.bad)
			e.failed, e.since = true, now
		}
	}
	wait := s.cfg.Interval
	if e.failed || err != nil {
		wait = min(wait, quick)
	}
	e.due = now.Add(jitter(wait))
}

// jitter moves d by up to a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // spreads load, and guards nothing
}

// tell tells Changed what is new, if anything is.
func (s *Set) tell() {
	if s.cfg.Changed == nil {
		return
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	now := s.state()
	news := s.told == nil || s.told.Ready != now.Ready || !now.Ready && s.told.Why() != now.Why()
	if news {
		s.told = &now
	}
	s.mu.Unlock()
	if news {
		s.cfg.Changed(now)
	}
}

// hasNames tells that endpoints have to be looked up.
func (s *Set) hasNames() bool {
	if s.cfg.Resolve == nil {
		return false
	}
	for _, endpoint := range s.cfg.Endpoints {
		if _, err := netip.ParseAddrPort(endpoint); err != nil {
			return true
		}
	}
	return false
}

// follow looks names up until ctx ends.
func (s *Set) follow(ctx context.Context) {
	known := make(map[string][]string)
	said := ""
	for first := true; ; first = false {
		addresses, err := s.lookup(ctx, known)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		if len(addresses) > 0 {
			s.replace(addresses)
		}
		s.lookupErr = err
		s.mu.Unlock()
		if err != nil && err.Error() != said {
			s.cfg.Logger.Warn("endpoint cannot be looked up, what is known of it stays", "reason", err)
		}
		wait := s.cfg.Interval
		if said = ""; err != nil {
			said = err.Error()
			wait = min(wait, quick)
		}
		if first {
			close(s.resolved)
		}
		s.notify()
		s.tell()
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
			return
		}
	}
}

// lookup returns what all endpoints stand for, by what known has of those names
// that cannot be looked up now, and why those cannot.
func (s *Set) lookup(ctx context.Context, known map[string][]string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var all []string
	var problems []error
	for _, endpoint := range s.cfg.Endpoints {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err == nil {
			all = append(all, endpoint)
			continue
		}
		found, err := s.cfg.Resolve(ctx, host)
		switch {
		case err != nil:
			problems = append(problems, err)
		case len(found) == 0:
			problems = append(problems, fmt.Errorf("%s has no addresses", host))
		default:
			slices.Sort(found) // DNS rotates them
			known[endpoint] = found
		}
		for _, address := range known[endpoint] {
			all = append(all, net.JoinHostPort(address, port))
		}
	}
	return all, errors.Join(problems...)
}
