package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// kubectl is kubectl by way of the hub.
func (w *world) kubectl(t *testing.T, cluster, token string) testbed.Kubectl {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, testbed.Kubeconfig("https://"+w.hub.addr()+"/"+cluster, w.hub.ca, token), 0o600))
	return w.managed.KubectlAs(path)
}

// execution is a kubectl exec that runs cat, so that it lasts as long as its
// caller wants.
type execution struct {
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr *bytes.Buffer
	wait   func() error
}

func startExec(ctx context.Context, t *testing.T, k testbed.Kubectl) *execution {
	t.Helper()
	cmd := k.Command(ctx, "-n", "work", "exec", "-i", "worker", "--", "cat")
	e := &execution{stderr: new(bytes.Buffer), wait: cmd.Wait}
	var err error
	e.stdin, err = cmd.StdinPipe()
	must(t, err)
	e.stdout, err = cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = e.stderr
	must(t, cmd.Start())
	return e
}

// echo sends a line and wants it back.
func (e *execution) echo(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(e.stdin, text)
	must(t, err)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(e.stdout, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v: %s", got, err, e.stderr)
	}
}

func TestExec(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	isExec := func(l line) bool { return l.Subresource == "exec" && l.User.Name == "ada" && l.Cluster == "managed" }
	e := startExec(ctx, t, the.kubectl(t, "managed", the.ada))
	const secret = "typed-into-the-session\n"
	e.echo(t, secret)
	t.Run("N11: an open exec is in the live view, with its identity, target, bytes and age", func(t *testing.T) {
		must(t, testbed.Poll(ctx, "the live view", func(ctx context.Context) error {
			text, err := the.hub.plain(ctx, "http://"+the.hub.debug.Addr()+"/debug/requests?cluster=managed")
			if err != nil {
				return err
			}
			var view struct {
				Requests []struct {
					User, Cluster, Target, Path, RequestID, TraceID string
					AgeSeconds                                      float64
					ReceivedBytes, SentBytes                        int64
				}
			}
			if err := json.Unmarshal([]byte(text), &view); err != nil {
				return err
			}
			for _, r := range view.Requests {
				if strings.HasSuffix(r.Path, "/pods/worker/exec") && r.User == "ada" && r.Cluster == "managed" && r.Target == "kubernetes" && r.AgeSeconds > 0 &&
					r.ReceivedBytes >= int64(len(secret)) && r.SentBytes >= int64(len(secret)) && r.RequestID != "" && r.TraceID != "" {
					return nil
				}
			}
			return errors.New(text)
		}))
	})
	var lines []line
	t.Run("D8,N11: an exec has audit lines at its start, while it lasts and at its end", func(t *testing.T) {
		lines = awaitLines(ctx, t, "two lines of an open exec", isExec, func(l []line) bool { return len(l) >= 3 })
		if lines[0].Stage != "session-start" || lines[1].Stage != "session-interval" {
			t.Fatalf("the first lines are %+v", lines)
		}
		must(t, e.stdin.Close())
		rest, err := io.ReadAll(e.stdout)
		if err := errors.Join(err, e.wait()); err != nil || len(rest) != 0 {
			t.Errorf("exec ended with %q, %v: %s", rest, err, e.stderr)
		}
		lines = awaitLines(ctx, t, "the line of the end", isExec, func(l []line) bool { return l[len(l)-1].Stage == "session-end" })
		first, last := lines[0], lines[len(lines)-1]
		for _, l := range lines {
			if l.SessionID == "" || l.SessionID != first.SessionID || l.RequestID != first.RequestID || l.TraceID != first.TraceID || l.Decision != "allow" {
				t.Errorf("a line of another session: %+v", l)
			}
			if l.ClusterUser.Name != "cluster:hub:ada" || l.Resource != "pods" || l.Name != "worker" || l.Namespace != "work" || l.Cluster != "managed" || strings.Contains(l.Path, "?") {
				t.Errorf("not the exec: %+v", l)
			}
		}
		if last.End != "completed" || last.Status != 101 || last.Received < int64(len(secret)) || last.Sent < int64(len(secret)) || last.Duration < 1 {
			t.Errorf("the last line is %+v", last)
		}
		t.Logf("lines of one exec:\n%s", rawLines(t, first.SessionID))
	})
	t.Run("D7: what is typed into a session is in no line and in no log", func(t *testing.T) {
		logs, err := culvertLogs()
		must(t, err)
		for file, text := range logs {
			if strings.Contains(text, strings.TrimSpace(secret)) {
				t.Errorf("%s has it", file)
			}
		}
	})
	t.Run("D8: a session whose caller is gone has a last line too", func(t *testing.T) {
		short, cancel := context.WithCancel(ctx)
		e := startExec(short, t, the.kubectl(t, "managed", the.ada))
		e.echo(t, "x\n")
		cancel()
		_ = e.wait() // it was killed
		ends := func(l []line) bool {
			n := 0
			for _, l := range l {
				if l.Stage == "session-end" {
					n++
				}
			}
			return n == 2
		}
		all := awaitLines(ctx, t, "the end of the second exec", isExec, ends)
		if last := all[len(all)-1]; last.End == "" {
			t.Errorf("%+v", last)
		}
	})
}

// rawLines are the lines of a session as they are in the file.
func rawLines(t *testing.T, session string) string {
	t.Helper()
	text, err := os.ReadFile(auditFile())
	must(t, err)
	var b strings.Builder
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, fmt.Sprintf(`"sessionID":%q`, session)) {
			b.WriteString(l)
		}
	}
	return b.String()
}
