package agent

import (
	"fmt"
	"sync/atomic"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// status is what hubs are told of how ready the agent is. It is safe for concurrent
// use; the zero value says nothing.
type status struct {
	now    atomic.Pointer[wire.Status]
	dialer atomic.Pointer[tunnel.Dialer]
}

// changed takes a new state of the API server over and tells the hub.
func (s *status) changed(state balance.State) {
	r := upstream.Readiness(state)
	s.now.Store(&wire.Status{Kubernetes: &r})
	if d := s.dialer.Load(); d != nil {
		if link := d.Link(); link != nil {
			link.StatusChanged()
		}
	}
}

// endpointsHealth says how many endpoints of the API server work, and why the
// others do not. Nothing of it keeps the agent from being ready: it is connected,
// and starting it again would help nobody.
func (a *Agent) endpointsHealth() []Health {
	state, ok := a.upstream.Endpoints()
	if !ok || a.cfg.KubernetesProbe.Kind == upstream.ProbeNone {
		return nil // nobody knows
	}
	healthy := 0
	for _, e := range state.Endpoints {
		if !e.Failed {
			healthy++
		}
	}
	h := Health{Name: "kubernetes endpoints", Subject: fmt.Sprintf("%d of %d healthy", healthy, len(state.Endpoints))}
	if why := state.Why(); why != "" {
		h.Warnings = []string{why}
	}
	return []Health{h}
}

// endpoints is what metrics say of them.
func (a *Agent) endpoints() []telemetry.Endpoint {
	state, _ := a.upstream.Endpoints()
	out := make([]telemetry.Endpoint, 0, len(state.Endpoints))
	for _, e := range state.Endpoints {
		out = append(out, telemetry.Endpoint{Address: e.Address, Healthy: !e.Failed, Outstanding: e.Outstanding})
	}
	return out
}
