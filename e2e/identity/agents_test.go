package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// startTwins starts two agents of one cluster with one certificate, as two
// replicas in a cluster are, and waits for the tunnel of each.
func startTwins(ctx context.Context, t *testing.T, cluster string, names [2]string) (agents [2]*testbed.Process) {
	t.Helper()
	kubeconfig, err := the.managed.AgentKubeconfig(ctx)
	must(t, err)
	out := filepath.Join(testbed.Dir(), "main-"+cluster)
	_, err = run(ctx, "culvert", "pki", "agent", "--state", the.hub.state(), "--cluster", cluster, "--out", out)
	must(t, err)
	for i, name := range names {
		agents[i], err = testbed.StartProcess(ctx, testbed.ProcessConfig{
			Name: fmt.Sprintf("culvert-agent-main-%s-%d", cluster, i), Path: bin("culvert-agent"), LogDir: testbed.Dir(), Env: processEnv(),
			Args: []string{
				"--hub", the.hub.addr(), "--hub-ca", filepath.Join(out, "ca.crt"), "--cert", filepath.Join(out, "tls.crt"),
				"--key", filepath.Join(out, "tls.key"), "--kubeconfig", kubeconfig, "--name", name,
			},
		})
		must(t, err)
		t.Cleanup(func() { must(t, agents[i].Stop(context.Background())) })
		must(t, testbed.Poll(ctx, "the tunnel of agent "+name, func(ctx context.Context) error {
			text, err := the.hub.plain(ctx, "http://"+the.hub.debug.Addr()+"/debug/links?cluster="+cluster)
			if err == nil && strings.Count(text, `"instance"`) != i+1 {
				err = errors.New(text)
			}
			return err
		}))
	}
	return agents
}

// served tells by its own log whether an agent served a request.
func served(t *testing.T, agent *testbed.Process, requestID string) bool {
	t.Helper()
	text, err := os.ReadFile(agent.Log())
	must(t, err)
	return requestID != "" && strings.Contains(string(text), requestID)
}

// awaitServed waits for the line of whichever agent served a request: it writes it when its
// part has ended.
func awaitServed(ctx context.Context, t *testing.T, agents [2]*testbed.Process, requestID string) {
	t.Helper()
	must(t, testbed.Poll(ctx, "the line of an agent", func(context.Context) error {
		if !served(t, agents[0], requestID) && !served(t, agents[1], requestID) {
			return fmt.Errorf("none of %s", requestID)
		}
		return nil
	}))
}

func TestAgentNames(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	for _, c := range []struct {
		title, cluster string
		given, want    [2]string
	}{
		{"N11: of two agents of one cluster, a line names the one that served the request", "twins", [2]string{"edge-6f9c", "edge-x2x4"}, [2]string{"edge-6f9c", "edge-x2x4"}},
		{"N11: also where both call themselves alike", "doubles", [2]string{"edge", "edge"}, [2]string{"edge", "edge~"}},
	} {
		t.Run(c.title, func(t *testing.T) {
			agents := startTwins(ctx, t, c.cluster, c.given)
			// So many at once that they need several sessions, and then by sessions
			// that are there.
			var mu sync.Mutex
			var replies []reply
			for range 2 {
				var asking sync.WaitGroup
				for range 12 {
					asking.Go(func() {
						got, err := the.hub.ask(ctx, call{path: "/" + c.cluster + firstPath, token: the.ada})
						if err != nil || got.status != 200 {
							t.Errorf("%d: %s, %v", got.status, got.body, err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						replies = append(replies, got)
					})
				}
				asking.Wait()
			}
			of := [2]int{}
			for _, got := range replies {
				l, err := lineOf(ctx, got)
				must(t, err)
				awaitServed(ctx, t, agents, l.RequestID)
				for i, agent := range agents {
					if !served(t, agent, l.RequestID) {
						continue
					}
					of[i]++
					if l.Agent != c.want[i] && (!strings.HasSuffix(c.want[i], "~") || !strings.HasPrefix(l.Agent, c.want[i])) {
						t.Errorf("the line has agent %q, and %q served the request", l.Agent, c.want[i])
					}
				}
			}
			if of[0]+of[1] != len(replies) || of[0] == 0 || of[1] == 0 {
				t.Errorf("the agents served %d and %d of %d requests: this proves nothing", of[0], of[1], len(replies))
			}
		})
	}
	t.Run("N11: every line of an exec names the agent that has it", func(t *testing.T) {
		agents := startTwins(ctx, t, "pair", [2]string{"left", "right"})
		isExec := func(l line) bool { return l.Subresource == "exec" && l.Cluster == "pair" }
		both := [2]*execution{}
		for i := range both {
			both[i] = startExec(ctx, t, the.kubectl(t, "pair", the.ada))
			both[i].echo(t, "x\n")
		}
		for _, e := range both {
			must(t, e.stdin.Close())
			must(t, e.wait())
		}
		lines := awaitLines(ctx, t, "the ends of both", isExec, func(l []line) bool {
			ends := 0
			for _, l := range l {
				if l.Stage == "session-end" {
					ends++
				}
			}
			return ends == 2
		})
		for _, l := range lines {
			awaitServed(ctx, t, agents, l.RequestID)
		}
		seen := map[string]bool{}
		for _, l := range lines {
			seen[l.Agent] = true
			if want := map[bool]string{true: "left", false: "right"}[served(t, agents[0], l.RequestID)]; l.Agent != want {
				t.Errorf("the %s line has agent %q, and %q had the session", l.Stage, l.Agent, want)
			}
		}
		if len(seen) != 2 {
			t.Errorf("the agents are %v: sessions go to the one with the fewest", seen)
		}
	})
}
