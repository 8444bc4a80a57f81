package refusals

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// tunnelProtocol is the ALPN name of the tunnel (docs/protocol.md).
const tunnelProtocol = "culvert.tunnel.v1"

// hub is a process culvert-hub.
type hub struct {
	addr, agentAddr string
	state           string
	roots           *x509.CertPool
	process         *testbed.Process
	ports           []*testbed.Port
	logs            string // folder of its agents' logs
}

// startHub starts a hub with a port of its own, and one more for agents only, and
// waits until it is ready. It logs at debug level.
func startHub(ctx context.Context, name string, args ...string) (_ *hub, err error) {
	h := &hub{state: filepath.Join(testbed.Dir(), name), logs: testbed.Dir()}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.stop())
		}
	}()
	for _, addr := range []*string{&h.addr, &h.agentAddr} {
		port, err := testbed.ReservePort(nil, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			return nil, err
		}
		h.ports, *addr = append(h.ports, port), port.Addr()
	}
	if _, err := run(ctx, "culvert", "pki", "init", "--state", h.state); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(h.caFile())
	if err != nil {
		return nil, err
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(ca)
	h.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-" + name, Path: bin("culvert-hub"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: append([]string{
			"--listen", h.addr, "--agent-listen", h.agentAddr, "--state", h.state, "--log-level", "debug", "--drain-timeout", "2s",
		}, args...),
		Ready: h.ready,
	})
	return h, err
}

func (h *hub) caFile() string { return filepath.Join(h.state, "pki", "serving-ca.crt") }

func (h *hub) stop() error {
	var err error
	if h.process != nil {
		err = h.process.Stop(context.Background())
	}
	for _, p := range h.ports {
		p.Close()
	}
	return err
}

// client returns a client that speaks HTTP/2 where the hub does; its connections
// are closed by the returned function.
func (h *hub) client() (client *http.Client, done func()) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots}, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

// get makes one request on a connection of its own.
func (h *hub) get(ctx context.Context, path, token string) (status int, body string, err error) {
	client, done := h.client()
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (h *hub) ready(ctx context.Context) error {
	status, body, err := h.get(ctx, "/-/readyz", "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, body)
	}
	return err
}

// issue makes the files of an agent's certificate as a user does.
func (h *hub) issue(ctx context.Context, cluster string) (dir string, err error) {
	dir = filepath.Join(h.state, "agent-"+cluster)
	_, err = run(ctx, "culvert", "pki", "agent", "--state", h.state, "--cluster", cluster, "--out", dir)
	return dir, err
}

// agentArgs are the arguments of an agent whose files are in dir.
func (h *hub) agentArgs(dir, kubeconfig string, more ...string) []string {
	return append([]string{
		"--hub", h.addr, "--hub-ca", h.caFile(), "--cert", filepath.Join(dir, "tls.crt"), "--key", filepath.Join(dir, "tls.key"),
		"--kubeconfig", kubeconfig, "--log-level", "debug", "--drain-timeout", "2s",
	}, more...)
}

// startAgent starts an agent of cluster; await waits until it is there.
func (h *hub) startAgent(ctx context.Context, cluster, kubeconfig string, more ...string) (*testbed.Process, error) {
	dir, err := h.issue(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + cluster, Path: bin("culvert-agent"), LogDir: h.logs, Env: processEnv(),
		Args: h.agentArgs(dir, kubeconfig, more...),
	})
}

// await waits until cluster answers.
func (h *hub) await(ctx context.Context, cluster, token string) error {
	return testbed.Poll(ctx, "the tunnel of "+cluster, func(ctx context.Context) error {
		status, body, err := h.get(ctx, "/"+cluster+"/version", token)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}

// logLines returns the lines of a log that contain all the parts.
func logLines(t *testing.T, log string, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
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

// awaitLine waits until a log has a line with all the parts, and returns the
// first such line.
func awaitLine(ctx context.Context, t *testing.T, log string, parts ...string) string {
	t.Helper()
	var line string
	err := testbed.Poll(ctx, "a line in "+filepath.Base(log), func(context.Context) error {
		lines := logLines(t, log, parts...)
		if len(lines) == 0 {
			return fmt.Errorf("none with %q", parts)
		}
		line = lines[0]
		return nil
	})
	if err != nil {
		text, _ := os.ReadFile(log)
		t.Errorf("%v\n%s", err, text)
	}
	return line
}
