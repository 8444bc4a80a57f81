package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestPlugin(t *testing.T) {
	ctx := within(t, 60*time.Second)
	t.Run("kubectl runs culvert as its plugin, and completes it", func(t *testing.T) {
		got, err := run(ctx, the.as("alice"), "", "kubectl", "culvert", "whoami", "-o", "json")
		if err != nil || got.code != 0 || !strings.Contains(got.stdout, `"name": "alice"`) {
			t.Errorf("%v %+v", err, got)
		}
		got, err = run(ctx, the.as("alice"), "", "kubectl", "culvert", "clusters", "--help")
		if err != nil || !strings.Contains(got.stdout, "kubectl culvert clusters [command]") {
			t.Errorf("%v %+v", err, got)
		}
		completes(ctx, t, "kubectl", the.as("alice"), func(out string) bool { return strings.Contains(out, connected+"\tconnected\n"+away+"\taway\n") },
			"culvert", "clusters", "get", "edge-")
	})
}

// completes waits until a program completes a line as wanted: one that the hub has not told
// the names of clusters in time completes nothing, and the next key asks again.
func completes(ctx context.Context, t *testing.T, program string, env []string, wanted func(out string) bool, args ...string) {
	t.Helper()
	must(t, testbed.Poll(ctx, fmt.Sprintf("the completion of %q", args), func(context.Context) error {
		got, err := run(ctx, env, "", program, append([]string{"__complete"}, args...)...)
		if err == nil && (got.code != 0 || !wanted(got.stdout)) {
			err = fmt.Errorf("%+v", got)
		}
		return err
	}))
}

func TestCompletion(t *testing.T) {
	ctx := within(t, 60*time.Second)
	complete := func(env []string, args ...string) string {
		t.Helper()
		return ok(ctx, t, env, append([]string{"__complete"}, args...)...).stdout
	}
	t.Run("names of clusters are completed from the hub, and what is given already is not", func(t *testing.T) {
		is := func(want string) func(string) bool { return func(out string) bool { return out == want } }
		completes(ctx, t, "culvert", the.as("alice"), is(connected+"\tconnected\n"+away+"\taway\n:4\n"), "kubeconfig", "")
		completes(ctx, t, "culvert", the.as("alice"), is(away+"\taway\n:4\n"), "kubeconfig", connected, "")
		completes(ctx, t, "culvert", nil, is(away+"\taway\n:4\n"), "clusters", "get", "--hub", the.url(), "--hub-ca", the.hubCA(), "--token-file", the.tokenFile("alice"), "edge-a")
	})
	t.Run("without a hub there is no name, no word and no long wait", func(t *testing.T) {
		began := time.Now()
		if out := complete(append(the.as("alice"), "CULVERT_HUB=https://"+the.unused.Addr()), "kubeconfig", ""); out != ":4\n" {
			t.Errorf("%q", out)
		}
		if err := testbed.InTime(ctx, bin("culvert"), time.Since(began), 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("profiles and forms of output are completed", func(t *testing.T) {
		env := []string{"CULVERT_CONFIG=" + filepath.Join(testbed.Dir(), "completion.yaml")}
		ok(ctx, t, env, "login", the.url(), "--profile", "shop", "--hub-ca", the.hubCA(), "--token-file", the.tokenFile("alice"))
		if out := complete(env, "whoami", "--profile", "s"); out != "shop\t"+the.url()+"\n:4\n" {
			t.Errorf("%q", out)
		}
		if out := complete(env, "whoami", "-o", ""); !strings.HasPrefix(out, "table\nwide\njson\nyaml\n") {
			t.Errorf("%q", out)
		}
	})
}

// TestWatch is about a watch that outlives its hub, and its end.
func TestWatch(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	cmd := exec.CommandContext(ctx, bin("culvert"), "clusters", "watch", "-o", "json")
	cmd.Env = append(os.Environ(), the.as("alice")...)
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(pipe)
	until := func(what string, wanted func(kind, cluster string, connected bool) bool) {
		t.Helper()
		for lines.Scan() {
			var event struct {
				Type    string
				Cluster struct {
					Name      string
					Connected bool
				}
			}
			must(t, json.Unmarshal(lines.Bytes(), &event))
			if wanted(event.Type, event.Cluster.Name, event.Cluster.Connected) {
				return
			}
		}
		t.Fatalf("%s: the watch ended: %v", what, lines.Err())
	}
	t.Run("changes of clusters are seen as they come", func(t *testing.T) {
		until("synced", func(kind, _ string, _ bool) bool { return kind == "SYNCED" })
		must(t, the.agent.Stop(context.Background()))
		until("away", func(_, name string, up bool) bool { return name == connected && !up })
		must(t, the.agent.Start(ctx))
		until("back", func(_, name string, up bool) bool { return name == connected && up })
	})
	t.Run("an interrupt ends it with exit code 130", func(t *testing.T) {
		must(t, cmd.Process.Signal(syscall.SIGINT))
		for lines.Scan() {
		}
		exit := &exec.ExitError{}
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("%v", err)
		}
	})
}

// TestColour is about who sees colours.
func TestColour(t *testing.T) {
	ctx := within(t, time.Minute)
	shown := func(env ...string) string {
		cmd := exec.CommandContext(ctx, "script", "-qec", bin("culvert")+" clusters list", "/dev/null")
		cmd.Env = append(append(os.Environ(), the.as("alice")...), env...)
		out, err := cmd.CombinedOutput()
		must(t, err)
		return string(out)
	}
	t.Run("colours are for a terminal, and not with NO_COLOR", func(t *testing.T) {
		if out := shown("TERM=xterm"); !strings.Contains(out, "\x1b[32mconnected\x1b[0m") || !strings.Contains(out, "\x1b[31maway\x1b[0m") {
			t.Errorf("%q", out)
		}
		if out := shown("TERM=xterm", "NO_COLOR=1"); strings.Contains(out, "\x1b[3") {
			t.Errorf("%q", out)
		}
		if out := ok(ctx, t, the.as("alice"), "clusters", "list").stdout; strings.Contains(out, "\x1b") {
			t.Errorf("%q", out)
		}
	})
}
