package trust

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

// hubConfig is what tests change of a hub.
type hubConfig struct {
	// yaml is a configuration file's text.
	yaml string
	// args are further flags.
	args []string
	// roots verify the hub where the CA of its state folder does not.
	roots *x509.CertPool
	// inside runs it in the private network.
	inside bool
}

// hub is a process culvert-hub with a port for everybody and one for agents.
type hub struct {
	name        string
	state       string
	port, agent *testbed.Port
	metrics     *testbed.Port
	process     *testbed.Process
	network     *testbed.Namespace // nil: the tests' own
	cfg         hubConfig
}

// newHub starts a hub from nothing and waits until it is ready. It logs all that
// it ever logs.
func (w *world) newHub(ctx context.Context, name string, cfg hubConfig) (_ *hub, err error) {
	h := &hub{name: name, state: filepath.Join(testbed.Dir(), "hub-"+name), cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.stop())
		}
	}()
	address := testbed.HubAddress
	if cfg.inside {
		h.network, address = w.private.Inside, testbed.InsideAddress
	}
	for _, p := range []struct {
		to *(*testbed.Port)
		ip netip.Addr
	}{{&h.port, address}, {&h.agent, address}, {&h.metrics, netip.MustParseAddr("127.0.0.1")}} {
		if *p.to, err = testbed.ReservePort(h.network, p.ip); err != nil {
			return nil, err
		}
	}
	args := []string{
		"--listen", h.addr(), "--agent-listen", h.agent.Addr(), "--metrics-listen", h.metrics.Addr(),
		"--tls-name", address.String(), "--tls-name", "localhost",
		"--state", h.state, "--token-file", w.tokens, "--log-level", "debug", "--drain-timeout", "2s",
	}
	if cfg.yaml != "" {
		file := filepath.Join(testbed.Dir(), "hub-"+name+".yaml")
		if err := os.WriteFile(file, []byte(cfg.yaml), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", file)
	}
	h.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub-" + name, Path: bin("culvert-hub"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: append(args, cfg.args...), Namespace: h.network, Ready: h.ready,
	})
	return h, err
}

// startHub is newHub for the time of a test.
func startHub(ctx context.Context, t *testing.T, name string, cfg hubConfig) *hub {
	t.Helper()
	h, err := the.newHub(ctx, name, cfg)
	must(t, err)
	t.Cleanup(func() { check(t, h.stop()) })
	return h
}

func (h *hub) addr() string   { return h.port.Addr() }
func (h *hub) caFile() string { return h.pki("serving-ca.crt") }

// pki is a file of the hub's CAs.
func (h *hub) pki(name string) string { return filepath.Join(h.state, "pki", name) }

func (h *hub) stop() error {
	var err error
	if h.process != nil {
		err = h.process.Stop(context.Background())
	}
	for _, p := range []*testbed.Port{h.port, h.agent, h.metrics} {
		if p != nil {
			p.Close()
		}
	}
	return err
}

// roots verify the hub, as they are now.
func (h *hub) roots() *x509.CertPool {
	if h.cfg.roots != nil {
		return h.cfg.roots
	}
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(h.caFile()); err == nil { // else nothing verifies
		pool.AppendCertsFromPEM(text)
	}
	return pool
}

// client returns a client that speaks HTTP/2; its connections are closed by the
// returned function.
func (h *hub) client(certs ...tls.Certificate) (client *http.Client, done func()) {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: h.roots(), Certificates: certs}, ForceAttemptHTTP2: true, DialContext: h.network.Dial,
	}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

// get makes one request as ada on a connection of its own.
func (h *hub) get(ctx context.Context, path string) (status int, body string, err error) {
	return h.getAs(ctx, path, the.ada)
}

// getAs is get with a token, or none, and client certificates.
func (h *hub) getAs(ctx context.Context, path, token string, certs ...tls.Certificate) (status int, body string, err error) {
	client, done := h.client(certs...)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.addr()+path, nil)
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
	return wantOK(h.getAs(ctx, "/-/readyz", ""))
}

// wants is an error unless path answers 200 for ada.
func (h *hub) wants(ctx context.Context, path string) error {
	return wantOK(h.get(ctx, path))
}

func wantOK(status int, body string, err error) error {
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, body)
	}
	return err
}

// await waits until the agent of cluster serves.
func (h *hub) await(ctx context.Context, t *testing.T, cluster string) {
	t.Helper()
	must(t, testbed.Poll(ctx, "the tunnel of "+cluster, func(ctx context.Context) error { return h.wants(ctx, "/"+cluster+"/version") }))
}

// readyz is the report on certificates and files.
func (h *hub) readyz(ctx context.Context) (string, error) {
	_, body, err := h.get(ctx, "/-/readyz?verbose")
	return body, err
}

// metric returns the lines of a metric.
func (h *hub) metric(ctx context.Context, name string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.metrics.Addr()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: h.network.Dial}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, err
}

// cli runs the culvert command against the hub's state folder.
func (h *hub) cli(ctx context.Context, args ...string) (string, error) {
	return run(ctx, "culvert", append(args, "--state", h.state)...)
}

// token makes a join token and returns the line to paste and the token in it.
func (h *hub) token(ctx context.Context, t *testing.T, cluster string, args ...string) (line, token string) {
	t.Helper()
	out, err := h.cli(ctx, append([]string{"token", "create", "--cluster", cluster}, args...)...)
	must(t, err)
	line, token = joinLine(t, out)
	return line, token
}

// joinLine finds the command in what culvert token create prints, and plants its
// secrets.
func joinLine(t *testing.T, out string) (line, token string) {
	t.Helper()
	for l := range strings.Lines(out) {
		if strings.HasPrefix(strings.TrimSpace(l), "culvert-agent join ") {
			line = strings.TrimSpace(l)
		}
	}
	for word := range strings.FieldsSeq(line) {
		if strings.HasPrefix(strings.Trim(word, `'"`), "culvert-join.") {
			token = strings.Trim(word, `'"`)
		}
	}
	if token == "" {
		t.Fatalf("no line to paste with a token in it: %q", out)
	}
	must(t, the.plantToken(token))
	return line, token
}
