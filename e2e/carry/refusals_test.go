package carry

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestRefusals(t *testing.T) {
	free, err := testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	defer free.Close()
	good := flags(hubAddress(), "ada.token")
	wrongCA := flags(hubAddress(), "ada.token")
	wrongCA[3] = the.cluster.CAFile
	commands := map[string][]string{
		"connect": {"connect", "edge-1", "web.prod:7000"}, "forward": {"forward", "edge-1", "0:web.prod:7000"},
		"socks": {"socks", "--cluster", "edge-1", "--listen", "127.0.0.1:0"}, "ping": {"ping", "edge-1", "-c", "1"},
		"bench": {"bench", "edge-1", "--duration", "1s"}, "verify": {"verify", "edge-1"},
	}
	t.Run("the hub", func(t *testing.T) {
		for name, c := range map[string]struct {
			flags []string
			says  string
		}{
			"no hub": {flags(free.Addr(), "ada.token"), "connection refused"}, "a CA that is not the hub's": {wrongCA, "certificate"},
			"a wrong credential": {flags(hubAddress(), "wrong.token"), "unauthenticated"},
		} {
			for command, args := range commands {
				t.Run("N10: "+command+", "+name+": one line says what is wrong", func(t *testing.T) {
					t.Parallel() // each waits for a hub that may come back
					refuses(t, c.flags, args, c.says)
				})
			}
		}
	})
	for name, args := range map[string][]string{
		"connect": {"connect", "edge-2", "web.prod:7000"}, "forward": {"forward", "edge-2", "0:web.prod:7000"}, "ping": {"ping", "edge-2", "-c", "1"},
		"bench": {"bench", "edge-2", "--duration", "1s"}, "verify": {"verify", "edge-2"},
	} {
		t.Run("N10: "+name+", an unknown cluster: one line says what is wrong", func(t *testing.T) { refuses(t, good, args, "edge-2") })
	}
	t.Run("an agent that is away", func(t *testing.T) {
		must(t, the.agent.Stop(t.Context()))
		defer func() {
			must(t, the.agent.Start(t.Context()))
			must(t, testbed.Poll(t.Context(), "the agent", the.reaches))
		}()
		for name, args := range commands {
			t.Run("N10: "+name+", an agent that is away: one line says what is wrong", func(t *testing.T) { refuses(t, good, args, "edge-1") })
		}
	})
}

// refuses runs a command that has to fail, soon and with one line.
func refuses(t *testing.T, flags, args []string, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := commandAs(ctx, flags, args...)
	cmd.Stdin = strings.NewReader("x")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	text := stderr.String()
	if exitCode(err) < 1 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "culvert: ") || !strings.Contains(text, says) {
		t.Errorf("%v, want one line with %q: %s", err, says, text)
	}
	if len(out) > 0 && args[0] != "ping" && args[0] != "verify" {
		t.Errorf("on standard output: %s", out)
	}
}
