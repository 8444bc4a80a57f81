package trust

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// agentDir is an agent's state folder.
func agentDir(name string) string { return filepath.Join(testbed.Dir(), "agent-"+name) }

// startAgent runs culvert-agent until the end of the test. Its log is
// culvert-agent-<name>.log, all that it ever logs.
func startAgent(ctx context.Context, t *testing.T, name string, args ...string) *testbed.Process {
	t.Helper()
	p, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + name, Path: bin("culvert-agent"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: append(args, "--log-level", "debug", "--drain-timeout", "1s"),
	})
	must(t, err)
	t.Cleanup(func() { check(t, p.Stop(context.Background())) })
	return p
}

// join starts an agent of cluster with a token of its own, serving the source,
// and waits until it is there.
func (h *hub) join(ctx context.Context, t *testing.T, cluster string) *testbed.Process {
	t.Helper()
	_, token := h.token(ctx, t, cluster)
	p := startAgent(ctx, t, h.name+"-"+cluster, "join", "--token", token,
		"--state", agentDir(h.name+"-"+cluster), "--kubeconfig", the.source.kubeconfig)
	h.await(ctx, t, cluster)
	return p
}

// enrol makes the files of an agent's certificate, as culvert-agent join does, and
// runs no agent.
func (h *hub) enrol(ctx context.Context, t *testing.T, cluster string) (dir string) {
	t.Helper()
	_, token := h.token(ctx, t, cluster)
	dir = agentDir(h.name + "-" + cluster)
	_, err := run(ctx, "culvert-agent", "join", "--token", token, "--state", dir, "--enrol-only")
	must(t, err)
	return dir
}

// leafOf returns the first certificate of a PEM file.
func leafOf(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// logLines returns the lines of a log that contain all the parts.
func logLines(t *testing.T, log string, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(log)
	must(t, err)
	var found []string
	for line := range strings.Lines(string(text)) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// lineTime bounds the wait for a line, so that one that is missing leaves time for
// the rest of the test.
const lineTime = 30 * time.Second

// awaitLine waits until a log has a line with all the parts behind the first
// skipped lines, and returns the first such line.
func awaitLine(ctx context.Context, t *testing.T, log string, skip int, parts ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, lineTime)
	defer cancel()
	var line string
	err := testbed.Poll(ctx, "a line in "+filepath.Base(log), func(context.Context) error {
		all := logLines(t, log, "")
		for _, l := range all[min(skip, len(all)):] {
			found := true
			for _, part := range parts {
				found = found && strings.Contains(l, part)
			}
			if found {
				line = l
				return nil
			}
		}
		return fmt.Errorf("none with %q", parts)
	})
	if err != nil {
		lines := logLines(t, log, "")
		t.Errorf("%v\n%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return line
}
