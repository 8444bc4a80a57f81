package refusals

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// dev is a running `culvert dev`.
type dev struct {
	cmd    *exec.Cmd
	log    string // file of its standard error
	out    *screen
	ended  chan error
	over   bool              // ended was received from
	values map[string]string // url, ca, token
	lines  map[string]string // the printed commands, by their first two words
}

// screen collects standard output.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// devEnv is the whole environment: home has nothing in it but what the test put
// there.
func devEnv(home string, more ...string) []string {
	env := []string{"HOME=" + home, "PATH=" + filepath.Join(testbed.Dir(), "bin") + ":" + os.Getenv("PATH"), "KUBERC=off"}
	return append(append(env, processEnv()...), more...)
}

// startDev runs culvert dev and waits until it has said how to use it.
func startDev(t *testing.T, home string, env, args []string) *dev {
	t.Helper()
	log, err := os.CreateTemp(testbed.Dir(), "culvert-dev-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d := &dev{
		cmd: exec.Command(bin("culvert"), append([]string{"dev", "--log-level", "debug"}, args...)...),
		out: &screen{}, log: log.Name(), ended: make(chan error, 1), values: map[string]string{}, lines: map[string]string{},
	}
	d.cmd.Env, d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = devEnv(home, env...), home, d.out, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.reap()
	t.Cleanup(func() {
		if !d.over {
			_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
			<-d.ended
		}
	})
	err = testbed.Poll(within(t, time.Minute), "culvert dev", func(context.Context) error {
		if !strings.Contains(d.out.String(), "Ctrl-C ends it.") {
			return errors.New("it has not said how to use it")
		}
		return nil
	})
	if err != nil {
		text, _ := os.ReadFile(d.log)
		t.Fatalf("%v\n%s\n%s", err, d.out, text)
	}
	for line := range strings.Lines(d.out.String()) {
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2:
			d.values[fields[0]] = fields[1]
		case len(fields) > 2:
			d.lines[fields[0]+" "+fields[1]] = line
		}
	}
	return d
}

// reap waits for the end of the process; it ends with it.
func (d *dev) reap() { d.ended <- d.cmd.Wait() }

// interrupt is Ctrl-C: the terminal signals the whole process group. It returns
// the exit code and how long the end took.
func (d *dev) interrupt(t *testing.T) (code int, took time.Duration) {
	t.Helper()
	started := time.Now()
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.ended:
		d.over = true
	case <-time.After(time.Minute):
		t.Fatal("culvert dev does not end")
	}
	return d.cmd.ProcessState.ExitCode(), time.Since(started)
}

// stop ends it as a user does, and holds it to that.
func (d *dev) stop(t *testing.T) {
	t.Helper()
	code, took := d.interrupt(t)
	if late := testbed.InTime(context.Background(), bin("culvert"), took, 5*time.Second); code != 0 || late != nil {
		text, _ := os.ReadFile(d.log)
		t.Errorf("Ctrl-C: exit code %d after %v, %v\n%s", code, took, late, text)
	}
	// A group that no process is in cannot be signalled.
	if err := syscall.Kill(-d.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process of culvert dev is left: %v", err)
	}
}

// shell runs a line exactly as it was printed.
func shell(t *testing.T, home, line string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 2*time.Minute), "bash", "-euo", "pipefail", "-c", line)
	cmd.Env, cmd.Dir = devEnv(home, env...), home
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return string(out), nil
}

// fillView does for the role view what the controller manager does in a real
// cluster, and which the test bed does not have: it aggregates its rules.
func fillView(t *testing.T) {
	t.Helper()
	ctx := within(t, time.Minute)
	rules, err := the.managed.Kubectl(ctx, "get", "clusterrole", "system:aggregate-to-view", "-o", "jsonpath={.rules}")
	if err == nil {
		_, err = the.managed.Kubectl(ctx, "patch", "clusterrole", "view", "--type=merge", "-p", `{"rules":`+rules+`}`)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDev(t *testing.T) {
	t.Run("O5,O19,O23: culvert dev needs nothing else, its curl and kubectl lines work as printed, and a second start has the same CA and token", func(t *testing.T) {
		home := t.TempDir()
		first := startDev(t, home, nil, nil)
		for name, want := range map[string]string{
			"url": `^https://localhost:8443/dev$`, "ca": "^" + home + `/.*serving-ca\.crt$`, "token": `^[A-Z2-7]{26,}$`,
		} {
			if !regexp.MustCompile(want).MatchString(first.values[name]) {
				t.Errorf("%s is %q", name, first.values[name])
			}
		}
		curl := first.lines["curl --cacert"]
		if !strings.Contains(curl, first.values["token"]) || !strings.Contains(curl, first.values["url"]) || first.lines["kubectl --kubeconfig"] == "" {
			t.Errorf("printed: %s", first.out)
		}
		answer, err := shell(t, home, curl)
		if err != nil || !strings.Contains(answer, "GET /hello?from=culvert") || !strings.Contains(answer, "Impersonate-User: cluster:hub:dev") {
			t.Errorf("%s: %v: %s", curl, err, answer)
		}
		kubectl := first.lines["kubectl --kubeconfig"]
		if answer, err := shell(t, home, kubectl); err != nil || !strings.Contains(answer, "GET /hello?from=culvert") {
			t.Errorf("%s: %v: %s", kubectl, err, answer)
		}
		ca, err := os.ReadFile(first.values["ca"])
		if err != nil {
			t.Fatal(err)
		}
		first.stop(t)
		second := startDev(t, home, nil, nil)
		again, err := os.ReadFile(second.values["ca"])
		if err != nil || !bytes.Equal(ca, again) || second.values["token"] != first.values["token"] {
			t.Errorf("%v: CA or token are others after a second start", err)
		}
		if answer, err := shell(t, home, curl); err != nil || !strings.Contains(answer, "GET /hello?from=culvert") {
			t.Errorf("the first start's line: %v: %s", err, answer)
		}
		second.stop(t)
		log, err := os.ReadFile(second.log)
		if err != nil || !strings.Contains(string(log), "must not be used in production") || strings.Contains(string(log), second.values["token"]) {
			t.Errorf("its log lacks the warning, or has the token: %v: %s", err, log)
		}
	})

	t.Run("O5,S1: with a context of a kubeconfig its kubectl line works once the printed binding was made", func(t *testing.T) {
		home := t.TempDir()
		other := testbed.KubeContext{Name: "elsewhere", Server: "https://127.0.0.1:1", CA: nil}
		config := filepath.Join(home, "config")
		if err := os.WriteFile(config, testbed.Kubeconfigs(other, the.managed.AdminContext()), 0o600); err != nil {
			t.Fatal(err)
		}
		d := startDev(t, home, []string{"KUBECONFIG=" + config}, []string{"--upstream", "managed", "--cluster", "edge-1", "--listen", "127.0.0.1:8444", "--state", "a state's folder"})
		defer d.stop(t)
		if d.values["url"] != "https://localhost:8444/edge-1" {
			t.Errorf("url is %q", d.values["url"])
		}
		line := d.lines["kubectl --kubeconfig"]
		if out, err := shell(t, home, line); err == nil || !strings.Contains(out, `User "cluster:hub:dev" cannot list resource "pods"`) {
			t.Errorf("without the binding: %v: %s", err, out)
		}
		fillView(t)
		if out, err := shell(t, home, d.lines["kubectl create"], "KUBECONFIG="+the.managed.AdminKubeconfig); err != nil || !strings.Contains(out, "created") {
			t.Fatalf("the binding: %v: %s", err, out)
		}
		// An authorizer sees a new binding some milliseconds later.
		err := testbed.Poll(within(t, time.Minute), "the binding", func(context.Context) error {
			out, err := shell(t, home, line)
			if err == nil && !strings.Contains(out, "No resources found in default namespace") {
				err = errors.New(out)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if out, err := shell(t, home, d.lines["curl --cacert"]); err != nil || !strings.Contains(out, `"kind": "PodList"`) {
			t.Errorf("curl: %v: %s", err, out)
		}
		if _, err := shell(t, home, "kubectl delete clusterrolebinding culvert-dev", "KUBECONFIG="+the.managed.AdminKubeconfig); err != nil {
			t.Error(err)
		}
	})

	t.Run("O5,S1: with a URL it serves that, over https with verification", func(t *testing.T) {
		home := t.TempDir()
		plain := httptest.NewServer(http.HandlerFunc(record))
		defer plain.Close()
		ca := filepath.Join(home, "upstream.crt")
		block := &pem.Block{Type: "CERTIFICATE", Bytes: the.recorder.server.Certificate().Raw}
		if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name, url string
			env       []string
			says      []string
		}{
			{"http", plain.URL, nil, []string{`"Path":"/"`, `"Impersonate-User":["cluster:hub:dev"]`}},
			{"https", the.recorder.server.URL, []string{"SSL_CERT_FILE=" + ca}, []string{`"Path":"/"`}},
			{"https of an unknown CA", the.recorder.server.URL, []string{"SSL_CERT_FILE=" + the.hub.caFile()}, []string{`"code":502`, "target: ", "certificate signed by unknown authority"}},
		} {
			d := startDev(t, home, c.env, []string{"--upstream", c.url, "--listen", "127.0.0.1:8445"})
			out, err := shell(t, home, d.lines["curl --cacert"])
			for _, part := range c.says {
				if err != nil || !strings.Contains(out, part) {
					t.Errorf("%s: %v: want %s in %s", c.name, err, part, out)
				}
			}
			d.stop(t)
		}
	})

	t.Run("O5,N10: what it cannot do it says at once", func(t *testing.T) {
		home := t.TempDir()
		for _, c := range []struct {
			name string
			args []string
			says []string
		}{
			{"port in use", []string{"--listen", the.hub.addr}, []string{"listen: " + the.hub.addr + " is in use", "choose another address"}},
			{"unknown context", []string{"--upstream", "nosuch"}, []string{"--upstream:", `context "nosuch" does not exist`}},
			{"another scheme", []string{"--upstream", "ftp://x"}, []string{"--upstream:", "want http:// or https://"}},
			{"bad cluster", []string{"--cluster", "Edge"}, []string{"cluster:", "lower-case letters"}},
			{"bad rule", []string{"--listen", "127.0.0.1:0", "--allow-service", "x"}, []string{"allowServices[0]", "want NAMESPACE/NAME[:PORT]"}},
		} {
			cmd := exec.CommandContext(within(t, time.Minute), bin("culvert"), append([]string{"dev"}, c.args...)...)
			cmd.Env, cmd.Dir = devEnv(home), home
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%s: %v", c.name, err)
			}
			for _, part := range c.says {
				if !strings.Contains(string(out), part) {
					t.Errorf("%s: want %s in %s", c.name, part, out)
				}
			}
		}
	})
}
