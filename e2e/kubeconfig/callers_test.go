package kubeconfig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCallers(t *testing.T) {
	ctx := within(t, 6*time.Minute)
	the.agent(ctx, t, "callers", the.enrol(ctx, t, "edge-1"))
	me := []string{"--token-file", the.aliceFile, "--cluster", "edge-1", "--wait", "60s"}
	newFile := func(t *testing.T, args ...string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "config")
		_, err := the.kubeconfig(ctx, append(args, "--output", path)...)
		must(t, err)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		return path
	}
	read := func(t *testing.T, file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		must(t, err)
		return string(text)
	}
	t.Run("S16,O20: culvert kubeconfig makes a file that kubectl works with, and no secret is in it", func(t *testing.T) {
		made := newFile(t, me...)
		lists(ctx, t, made)
		lists(ctx, t, made, "--context", "edge-1")
		if strings.Contains(read(t, made), the.alice) {
			t.Error("the token is in the file")
		}
		if out, err := kubectl(ctx, made, "auth", "whoami"); err != nil || !strings.Contains(out, "cluster:hub:alice") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("S16: with --embed-token the file works on a machine without culvert", func(t *testing.T) {
		made := newFile(t, append(me, "--embed-token")...)
		if strings.Contains(read(t, made), "exec:") {
			t.Error("it needs a program")
		}
		lists(ctx, t, made)
	})
	t.Run("S16: twenty kubectl at once cost one run of the program that gives the token", func(t *testing.T) {
		calls := filepath.Join(t.TempDir(), "calls")
		line := fmt.Sprintf("echo called >> %s; cat %s", calls, the.aliceFile)
		made := newFile(t, "--token-command", line, "--cluster", "edge-1", "--wait", "60s")
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if out, err := kubectl(ctx, made, "get", "ns", "-o", "name"); err != nil || !strings.Contains(out, "namespace/kube-system") {
					t.Errorf("%v %q", err, out)
				}
			})
		}
		all.Wait()
		if n := strings.Count(read(t, calls), "called"); n != 1 {
			t.Errorf("the program ran %d times", n)
		}
	})
	t.Run("O20: --merge adds to the file that kubectl reads, keeps what was there, and does nothing the second time", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config")
		before := adminKubeconfig()
		must(t, os.WriteFile(file, before, 0o600))
		args := append(slices.Clone(me), "--merge", "--kubeconfig", file)
		_, err := the.kubeconfig(ctx, args...)
		must(t, err)
		lists(ctx, t, file, "--context", "managed")
		lists(ctx, t, file, "--context", "edge-1")
		if got := read(t, file+".bak"); got != string(before) {
			t.Errorf("the backup: %s", got)
		}
		merged := read(t, file)
		again, err := the.kubeconfig(ctx, args...)
		if err != nil || !strings.Contains(again.stderr, "there already") || read(t, file) != merged {
			t.Errorf("%v %s", err, again.stderr)
		}
		if _, err := the.kubeconfig(ctx, append(args, "--name", "managed")...); err == nil || !strings.Contains(err.Error(), "--force") || read(t, file) != merged {
			t.Errorf("a foreign entry: %v", err)
		}
	})
	t.Run("O20: --output does not destroy a file with other entries", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config")
		before := adminKubeconfig()
		must(t, os.WriteFile(file, before, 0o600))
		if _, err := the.kubeconfig(ctx, append(me, "--output", file)...); err == nil || !strings.Contains(err.Error(), "--merge") || read(t, file) != string(before) {
			t.Errorf("%v", err)
		}
	})
	t.Run("O20: --all has every cluster that is ready, and says what is left out", func(t *testing.T) {
		the.enrol(ctx, t, "edge-away")
		// Made known by an agent's visit only: recorded without one.
		_, err := run(ctx, nil, "culvert", "clusters", "set", "--state", the.state, "edge-far", "--direct-url", "https://127.0.0.1:1")
		must(t, err)
		file := filepath.Join(t.TempDir(), "config")
		out, err := the.kubeconfig(ctx, "--token-file", the.aliceFile, "--all", "--output", file)
		if err != nil || !strings.Contains(out.stderr, "left out: cluster edge-far") {
			t.Fatalf("%v %s", err, out.stderr)
		}
		if text := read(t, file); strings.Contains(text, "edge-away") || strings.Contains(text, "edge-far") {
			t.Error(text)
		}
		lists(ctx, t, file, "--context", "edge-1")
	})
	t.Run("P2: auto is the tunnel while an agent is there and the recorded URL while none is, and both are two contexts", func(t *testing.T) {
		admin := filepath.Join(t.TempDir(), "admin")
		must(t, os.WriteFile(admin, adminKubeconfig(), 0o600))
		for _, cluster := range []string{"edge-1", "edge-direct"} {
			_, err := run(ctx, nil, "culvert", "clusters", "set", "--state", the.state, cluster, "--direct-url", the.managed.URL, "--direct-ca", the.managed.CAFile)
			must(t, err)
		}
		// The user of the cluster itself works both ways: pass-through is on.
		from := []string{"--token-file", the.aliceFile, "--from", "managed", "--kubeconfig", admin, "--wait", "60s"}
		tunnel := newFile(t, append(from, "--cluster", "edge-1")...)
		if text := read(t, tunnel); !strings.Contains(text, "server: "+the.url()+"/edge-1\n") {
			t.Error(text)
		}
		direct := newFile(t, append(from, "--cluster", "edge-direct")...)
		if text := read(t, direct); !strings.Contains(text, "server: "+the.managed.URL+"\n") {
			t.Error(text)
		}
		both := newFile(t, append(from, "--cluster", "edge-1", "--access", "both")...)
		lists(ctx, t, tunnel, "--context", "edge-1")
		lists(ctx, t, direct, "--context", "edge-direct")
		lists(ctx, t, both, "--context", "edge-1-tunnel")
		lists(ctx, t, both, "--context", "edge-1-direct")
	})
	t.Run("S16: a bound token of a service account, asked for as the caller through the tunnel, is the user, and expires", func(t *testing.T) {
		made := newFile(t, append(me, "--token-request", "ci/deployer", "--duration", "15m")...)
		out, err := kubectl(ctx, made, "auth", "whoami")
		if err != nil || !strings.Contains(out, "system:serviceaccount:ci:deployer") {
			t.Errorf("%v %s", err, out)
		}
		if text := read(t, made); strings.Contains(text, the.alice) || !strings.Contains(text, "token: ey") {
			t.Error("the user is not the bound token alone")
		}
		if _, err := the.kubeconfig(ctx, append(me, "--token-request", "ci/other")...); err == nil || !strings.Contains(err.Error(), "cluster:hub:alice") {
			t.Errorf("a service account that alice may not use: %v", err)
		}
	})
	t.Run("S16: with --rotate the plugin gets such a token whenever one is needed", func(t *testing.T) {
		made := newFile(t, append(me, "--token-request", "ci/deployer", "--duration", "15m", "--rotate")...)
		if strings.Contains(read(t, made), "token: ey") {
			t.Error("a token is in the file")
		}
		for range 2 {
			if out, err := kubectl(ctx, made, "auth", "whoami"); err != nil || !strings.Contains(out, "system:serviceaccount:ci:deployer") {
				t.Errorf("%v %s", err, out)
			}
		}
	})
	t.Run("S16: culvert credential asks a cluster of a context for a token of a service account", func(t *testing.T) {
		admin := filepath.Join(t.TempDir(), "admin")
		must(t, os.WriteFile(admin, adminKubeconfig(), 0o600))
		args := []string{"credential", "--kubeconfig", admin, "--context", "managed", "--service-account", "ci/deployer", "--audience", "culvert", "--duration", "20m"}
		first, err := run(ctx, nil, "culvert", args...)
		must(t, err)
		second, err := run(ctx, nil, "culvert", args...)
		must(t, err)
		var got struct {
			Kind   string
			Status struct {
				Token               string
				ExpirationTimestamp time.Time
			}
		}
		must(t, json.Unmarshal([]byte(first.stdout), &got))
		left := time.Until(got.Status.ExpirationTimestamp)
		if got.Kind != "ExecCredential" || first.stdout != second.stdout || left < 10*time.Minute || left > 20*time.Minute {
			t.Errorf("%s, %v left; again: same %v", got.Kind, left, first.stdout == second.stdout)
		}
	})
	t.Run("D17: verification is on by default, and switched off only with a warning", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config")
		out, err := run(ctx, nil, "culvert", "kubeconfig", "--hub", the.url(), "--insecure-skip-tls-verify", "--token-file", the.aliceFile, "--cluster", "edge-1", "-o", file)
		if err != nil || !strings.Contains(out.stderr, "warning: --insecure-skip-tls-verify") {
			t.Fatalf("%v %s", err, out.stderr)
		}
		if text := read(t, file); !strings.Contains(text, "insecure-skip-tls-verify: true") || strings.Contains(text, "certificate-authority-data") {
			t.Error(text)
		}
		lists(ctx, t, file)
		if text := read(t, newFile(t, me...)); strings.Contains(text, "insecure") || !strings.Contains(text, "certificate-authority-data") {
			t.Error(text)
		}
	})
}
