package kubeconfig

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// answer is one of the hub.
type answer struct {
	code int
	body string
	err  error
	took time.Duration
}

func (w *world) ask(ctx context.Context, path, token string) answer {
	started := time.Now()
	code, body, err := w.get(ctx, path, token)
	return answer{code, body, err, time.Since(started)}
}

// refusal reads a Status.
func (a answer) refusal(t *testing.T) (reason string, waitFor string) {
	t.Helper()
	var status struct {
		Reason  string
		Details struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if a.err != nil || json.Unmarshal([]byte(a.body), &status) != nil {
		t.Fatalf("%v: %d %s", a.err, a.code, a.body)
	}
	for _, cause := range status.Details.Causes {
		if cause.Reason == "WaitFor" {
			waitFor = cause.Message
		}
	}
	return status.Reason, waitFor
}

func TestReady(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	const path = "/-/v1/clusters/edge-ready/kubeconfig"
	whole := t // the agent stays to its end
	dir := the.enrol(ctx, t, "edge-ready")
	t.Run("S20: before an agent is there the file is refused with 409 TunnelNotReady, and the command writes nothing", func(t *testing.T) {
		got := the.ask(ctx, path, the.alice)
		if reason, waitFor := got.refusal(t); got.code != http.StatusConflict || reason != "TunnelNotReady" || waitFor != "agent" {
			t.Errorf("%d %s", got.code, got.body)
		}
		file := filepath.Join(t.TempDir(), "config")
		_, err := the.kubeconfig(ctx, "--token-file", the.aliceFile, "--cluster", "edge-ready", "--output", file)
		if err == nil || !strings.Contains(err.Error(), "TunnelNotReady") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("a file is there: %v", err)
		}
	})
	t.Run("S20: with ?wait= the answer comes once the tunnel is verified, and the file works with kubectl at once", func(t *testing.T) {
		waiting := make(chan answer, 1)
		go func() { waiting <- the.ask(ctx, path+"?wait=60s", the.alice) }()
		if early := the.ask(ctx, path, the.alice); early.code != http.StatusConflict {
			t.Fatalf("%d %s", early.code, early.body)
		}
		the.agent(ctx, whole, "ready", dir)
		got := <-waiting
		if got.err != nil || got.code != http.StatusOK {
			t.Fatalf("%v: %d %s", got.err, got.code, got.body)
		}
		t.Logf("the answer came after %v", got.took.Round(time.Millisecond))
		file := filepath.Join(t.TempDir(), "config")
		must(t, os.WriteFile(file, []byte(got.body), 0o600))
		// The hub's file has no secret in it: culvert credential gets it.
		if strings.Contains(got.body, the.alice) {
			t.Error("the token is in the file")
		}
		t.Setenv("CULVERT_TOKEN_FILE", the.aliceFile)
		lists(ctx, t, file)
	})
	t.Run("S20: who may not reach a cluster learns nothing of it, and an unknown one is 404 as everywhere", func(t *testing.T) {
		for _, cluster := range []string{"edge-ready", "edge-none"} {
			if got := the.ask(ctx, "/-/v1/clusters/"+cluster+"/kubeconfig", the.mallory); got.code != http.StatusForbidden {
				t.Errorf("mallory, %s: %d %s", cluster, got.code, got.body)
			}
		}
		if got := the.ask(ctx, "/-/v1/clusters/edge-none/kubeconfig", the.alice); got.code != http.StatusNotFound {
			t.Errorf("%d %s", got.code, got.body)
		}
		// The hub does not know this token; the cluster, which may, does not either.
		if got := the.ask(ctx, path, "no-such-token"); got.code != http.StatusUnauthorized {
			t.Errorf("%d %s", got.code, got.body)
		}
		if got := the.ask(ctx, "/-/v1/kubeconfig", the.mallory); got.code != http.StatusOK || strings.Contains(got.body, "edge-ready") {
			t.Errorf("%d %s", got.code, got.body)
		}
	})
	t.Run("S20: a cluster whose API server is away is not ready", func(t *testing.T) {
		must(t, the.managed.APIServer.Stop(ctx))
		got := the.ask(ctx, path, the.alice)
		if reason, waitFor := got.refusal(t); got.code != http.StatusConflict || reason != "TunnelNotReady" || waitFor != "answer" {
			t.Errorf("%d %s", got.code, got.body)
		}
		must(t, the.managed.APIServer.Restart(ctx))
		if got := the.ask(ctx, path+"?wait=60s", the.alice); got.code != http.StatusOK {
			t.Errorf("%d %s", got.code, got.body)
		}
	})
	t.Run("S20: a CA that does not verify the hub is never written", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config")
		_, err := run(ctx, nil, "culvert", "kubeconfig", "--hub", the.url(), "--hub-ca", the.managed.CAFile, "--token-file", the.aliceFile, "--cluster", "edge-ready", "-o", file)
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("a file is there: %v", err)
		}
	})
	must(t, testbed.Poll(ctx, "the API server", func(ctx context.Context) error {
		_, err := the.managed.Kubectl(ctx, "get", "--raw", "/readyz")
		return err
	}))
}
