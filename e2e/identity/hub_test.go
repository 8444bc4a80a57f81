package identity

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

	"github.com/culvertdev/culvert/e2e/testbed"
)

// hub is a process culvert-hub.
type hub struct {
	name    string
	port    *testbed.Port
	metrics *testbed.Port
	debug   *testbed.Port
	process *testbed.Process
	roots   *x509.CertPool
	ca      []byte
}

// newHub starts a hub with a configuration file and waits until it is ready. It
// logs all that it ever logs, and has a listener for debugging.
func newHub(ctx context.Context, name, yaml string) (_ *hub, err error) {
	h := &hub{name: name, roots: x509.NewCertPool()}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.stop())
		}
	}()
	for _, p := range []struct {
		to *(*testbed.Port)
		ip netip.Addr
	}{{&h.port, testbed.HubAddress}, {&h.metrics, loopback}, {&h.debug, loopback}} {
		if *p.to, err = testbed.ReservePort(nil, p.ip); err != nil {
			return nil, err
		}
	}
	if _, err := run(ctx, "culvert", "pki", "init", "--state", h.state()); err != nil {
		return nil, err
	}
	if h.ca, err = os.ReadFile(filepath.Join(h.state(), "pki", "serving-ca.crt")); err != nil {
		return nil, err
	}
	h.roots.AppendCertsFromPEM(h.ca)
	file := filepath.Join(testbed.Dir(), "hub-"+name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf([]byte(yaml), "debugListen: %s\n", h.debug.Addr()), 0o600); err != nil {
		return nil, err
	}
	h.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub-" + name, Path: bin("culvert-hub"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: []string{
			"--config", file, "--listen", h.addr(), "--metrics-listen", h.metrics.Addr(), "--tls-name", testbed.HubAddress.String(),
			"--state", h.state(), "--log-level", "debug", "--drain-timeout", "2s",
		},
		Ready: h.ready,
	})
	return h, err
}

func (h *hub) addr() string  { return h.port.Addr() }
func (h *hub) state() string { return filepath.Join(testbed.Dir(), "hub-"+h.name) }

func (h *hub) stop() error {
	var err error
	if h.process != nil {
		err = h.process.Stop(context.Background())
	}
	for _, p := range []*testbed.Port{h.port, h.metrics, h.debug} {
		if p != nil {
			p.Close()
		}
	}
	return err
}

// ready asks for the health of the process, which needs no agent.
func (h *hub) ready(ctx context.Context) error {
	_, err := h.plain(ctx, "https://"+h.addr()+"/-/readyz")
	return err
}

// plain makes a request without a credential that must be answered with 200.
func (h *hub) plain(ctx context.Context, url string) (string, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, text)
	}
	return string(text), err
}

// startAgent starts an agent of a cluster with a certificate of the hub's CA.
func (h *hub) startAgent(ctx context.Context, cluster, yaml string, args ...string) (*testbed.Process, error) {
	out := filepath.Join(testbed.Dir(), h.name+"-"+cluster)
	if _, err := run(ctx, "culvert", "pki", "agent", "--state", h.state(), "--cluster", cluster, "--out", out); err != nil {
		return nil, err
	}
	file := out + ".yaml"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return nil, err
	}
	return testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + h.name + "-" + cluster, Path: bin("culvert-agent"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: append([]string{
			"--config", file, "--hub", h.addr(), "--hub-ca", filepath.Join(out, "ca.crt"),
			"--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"), "--log-level", "debug",
		}, args...),
	})
}
