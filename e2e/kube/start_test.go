package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// TestStart runs the two commands that a newcomer runs.
func TestStart(t *testing.T) {
	t.Run("O5: culvert dev alone gives a working hub and agent without Kubernetes", func(t *testing.T) {
		dir := tempDir(t, "dev-")
		out := startDev(t, dir, nil, "--listen", "127.0.0.1:8443")
		command := find(t, out, `(?m)^ *(curl .*)$`)
		answer, err := shell(t, command)
		if err != nil || !strings.Contains(answer, "GET /hello?from=culvert") || !strings.Contains(answer, "Impersonate-User: cluster:hub:dev") {
			t.Errorf("%s: %q, %v", command, answer, err)
		}
	})
	t.Run("O5: one command walks through with two real API servers, and leaves nothing behind", func(t *testing.T) {
		temp := tempDir(t, "demo-")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(testbed.Dir(), "demo"), "-once")
		cmd.Env = append(os.Environ(), "TMPDIR="+temp)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("the demo: %v\n%s", err, out)
		}
		t.Logf("the demo took %v", time.Since(started))
		for _, want := range []string{`"kind": "PodList"`, "HTTP 200", "HTTP 403", "cluster:hub:system:serviceaccount:open-cluster-management-hub:test-sa"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the demo does not show %s:\n%s", want, out)
			}
		}
		left, err := os.ReadDir(temp)
		if err != nil || len(left) > 0 {
			t.Errorf("the demo left %v behind, %v", left, err)
		}
	})
}

// startDev starts culvert dev until the end of t and returns what it printed once
// it was ready.
func startDev(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	var out string
	p, err := testbed.StartProcess(within(t, time.Minute), testbed.ProcessConfig{
		Name: "culvert-dev", Path: binaries().CLI, Args: append([]string{"dev", "--state", filepath.Join(dir, "state")}, args...), Env: env, LogDir: dir,
		Ready: func(context.Context) error {
			text, err := os.ReadFile(filepath.Join(dir, "culvert-dev.log"))
			if err == nil && !strings.Contains(string(text), "Ctrl-C ends it") {
				err = errors.New("it has not said how to use it")
			}
			out = string(text)
			return err
		},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return out
}

// find returns what the group of pattern matches in text.
func find(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no %s in:\n%s", pattern, text)
	}
	return match[1]
}

// shell runs a line exactly as it was printed. Path is put before PATH.
func shell(t *testing.T, line string, path ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, time.Minute), "bash", "-euo", "pipefail", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(append(path, os.Getenv("PATH")), ":"),
		"KUBECACHEDIR="+filepath.Join(testbed.Dir(), "t", "kubectl-cache"), "KUBERC=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// testDev runs culvert dev in front of a real cluster.
func testDev(t *testing.T, w *world) {
	t.Run("culvert dev --upstream takes a context of the user's kubeconfig, and the lines that it prints work", func(t *testing.T) {
		dir := tempDir(t, "dev-")
		out := startDev(t, dir, []string{"KUBECONFIG=" + w.hub.AdminKubeconfig}, "--upstream", "default", "--cluster", "kind", "--listen", "127.0.0.1:8444")
		bin := filepath.Join(dir, "bin")
		must(t, os.Mkdir(bin, 0o700))
		must(t, os.Symlink(w.ops.kubectl.Path, filepath.Join(bin, "kubectl")))
		// The role view is empty where no controller fills it.
		grant := strings.Replace(find(t, out, `(?m)^ *(kubectl create clusterrolebinding .*)$`), "=view", "=cluster-admin", 1)
		if _, err := shell(t, "export KUBECONFIG="+w.hub.AdminKubeconfig+"; "+grant, bin); err != nil {
			t.Fatal(err)
		}
		// The binding counts once the API server has seen it.
		must(t, testbed.Poll(within(t, time.Minute), "the printed kubectl to work", func(context.Context) error {
			_, err := shell(t, find(t, out, `(?m)^ *(kubectl --kubeconfig .*)$`), bin)
			return err
		}))
		answer, err := shell(t, find(t, out, `(?m)^ *(curl .*)$`))
		must(t, err)
		var list struct{ Kind string }
		if err := json.Unmarshal([]byte(answer), &list); err != nil || list.Kind != "PodList" {
			t.Errorf("curl printed %q, %v", answer, err)
		}
	})
}
