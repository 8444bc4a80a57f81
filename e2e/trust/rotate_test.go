package trust

import (
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestRotationWhileAway(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 3*time.Minute)
	h := startHub(ctx, t, "away", hubConfig{})
	first := h.roots()
	agent := h.join(ctx, t, "edge")
	must(t, agent.Stop(ctx))
	_, token := h.token(ctx, t, "late")
	for _, role := range []string{"agents", "serving", "users", "peers"} {
		_, err := h.cli(ctx, "pki", "rotate", "--role", role)
		must(t, err)
	}
	t.Run("N7,O9: an agent that was off while the CAs were rotated comes back with what it has", func(t *testing.T) {
		must(t, agent.Start(ctx))
		h.await(ctx, t, "edge")
	})
	t.Run("K6: a join token from before the rotation goes on to be good", func(t *testing.T) {
		startAgent(ctx, t, "away-late", "join", "--token", token, "--state", agentDir("away-late"), "--kubeconfig", the.source.kubeconfig)
		h.await(ctx, t, "late")
	})
	t.Run("P16: a client that knows the CA of before goes on to verify the hub, also after a restart of it", func(t *testing.T) {
		verify := func() {
			t.Helper()
			chain, err := h.presented(ctx, "localhost")
			must(t, err)
			check(t, verifies(first, chain, testbed.HubAddress.String()))
			check(t, verifies(h.roots(), chain, testbed.HubAddress.String()))
		}
		verify()
		must(t, h.process.Restart(ctx))
		verify()
		h.await(ctx, t, "edge")
	})
	t.Run("P16,N7: two more rotations of the serving CA change nothing of that", func(t *testing.T) {
		must(t, agent.Stop(ctx))
		_, token := h.token(ctx, t, "later")
		for range 2 {
			_, err := h.cli(ctx, "pki", "rotate", "--role", "serving")
			must(t, err)
		}
		chain, err := h.presented(ctx, "localhost")
		must(t, err)
		check(t, verifies(first, chain, testbed.HubAddress.String()))
		must(t, agent.Start(ctx))
		h.await(ctx, t, "edge")
		startAgent(ctx, t, "away-later", "join", "--token", token, "--state", agentDir("away-later"), "--kubeconfig", the.source.kubeconfig)
		h.await(ctx, t, "later")
	})
}
