package culverttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/server"
)

// StopAgent ends the agent of a cluster, as when its network is lost: the hub knows the
// cluster, and has no way to it. Sessions are cut after a second. It waits for that.
func (h *Hub) StopAgent(t testing.TB, cluster string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.member(t, cluster).run.stop(); err != nil {
		t.Errorf("culverttest: agent of %s: %v", cluster, err)
	}
}

// StartAgent brings back the agent of a cluster that StopAgent ended, and waits until it
// is connected, for which the hub has to run.
func (h *Hub) StartAgent(t testing.TB, cluster string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	err := h.member(t, cluster).start()
	if err == nil {
		err = h.await(ctx, []string{cluster})
	}
	if err != nil {
		t.Fatalf("culverttest: agent of %s: %v", cluster, err)
	}
}

// StopHub ends the hub, as for an upgrade: clients and agents try to connect again, for as
// long as it is away. Requests and sessions are cut after a second. It waits for that.
func (h *Hub) StopHub(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.hub.stop(); err != nil {
		t.Errorf("culverttest: %v", err)
	}
}

// StartHub brings back the hub that StopHub ended, with its address and state, and waits
// until the agents that run are connected again. Clients connect by themselves.
func (h *Hub) StartHub(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	err := h.startHub(ctx)
	if err == nil {
		var running []string
		for name, m := range h.agents {
			if m.run.runs() {
				running = append(running, name)
			}
		}
		err = h.await(ctx, running)
	}
	if err != nil {
		t.Fatalf("culverttest: hub: %v", err)
	}
}

// member returns the agent of a cluster.
func (h *Hub) member(t testing.TB, cluster string) *member {
	t.Helper()
	m := h.agents[cluster]
	if m == nil {
		t.Fatalf("culverttest: no cluster %q", cluster)
	}
	return m
}

// startHub runs the hub, unless it runs. mu is held.
func (h *Hub) startHub(ctx context.Context) error {
	if h.hub.runs() {
		return nil
	}
	s, err := server.New(context.WithoutCancel(ctx), h.config)
	if err != nil {
		return err
	}
	h.server = s
	h.hub.start(s.Run)
	return nil
}

// start runs the agent, unless it runs.
func (m *member) start() error {
	if m.run.runs() {
		return nil
	}
	a, err := agent.New(m.config)
	if err != nil {
		return err
	}
	m.run.start(a.Run)
	return nil
}

// await waits until every agent is connected. mu is held.
func (h *Hub) await(ctx context.Context, clusters []string) error {
	for {
		changed := h.server.AgentsChanged()
		connected := make(map[string]bool, len(clusters))
		for _, a := range h.server.Agents() {
			connected[a.Cluster] = true
		}
		missing := slices.DeleteFunc(slices.Clone(clusters), func(name string) bool { return connected[name] })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no agent of %s is connected: %w", strings.Join(missing, ", "), context.Cause(ctx))
		}
	}
}

// process is a hub or an agent that runs, or none as the zero value does.
type process struct {
	cancel context.CancelFunc
	ended  chan error
}

func (p *process) runs() bool { return p.cancel != nil }

// start runs what ends with a context.
func (p *process) start(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p.cancel, p.ended = cancel, ended
	go func() { ended <- run(ctx) }()
}

// stop ends it and waits for that. What does not run has ended already.
func (p *process) stop() error {
	if !p.runs() {
		return nil
	}
	p.cancel()
	err := <-p.ended
	*p = process{}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // sessions were cut
	}
	return err
}
