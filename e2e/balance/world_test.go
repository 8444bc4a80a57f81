package balance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	clusterName = "managed"
	userToken   = "ada-token"
	versionPath = "/" + clusterName + "/version"
	reviewPath  = "/" + clusterName + "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	// review is a POST that everybody may make, and that is counted.
	review = `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`
)

// world is two API servers of one cluster, and a hub.
type world struct {
	dir     string
	culvert testbed.Culvert
	servers [2]*testbed.Cluster
	// kubeconfig is that of agents, and names the first server.
	kubeconfig string

	hub     *testbed.Process
	address *testbed.Port
	metrics *testbed.Port
	certs   string
	client  *http.Client
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func port(t *testing.T) *testbed.Port {
	t.Helper()
	p, err := testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(p.Close)
	return p
}

func startWorld(t *testing.T) *world {
	t.Helper()
	ctx := within(t, 3*time.Minute)
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	bin := binDir(testbed.Dir())
	w := &world{
		culvert: testbed.Culvert{Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert")},
		address: port(t), metrics: port(t),
	}
	w.dir, err = os.MkdirTemp("", "balance-") //nolint:usetesting // t.TempDir would put the test's name into the path of a Unix socket
	must(t, err)
	bed, err := testbed.New(ctx, testbed.Config{Dir: w.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	w.servers[0], err = bed.StartCluster(ctx, testbed.ClusterConfig{Name: clusterName})
	must(t, err)
	w.servers[1], err = bed.StartReplica(ctx, w.servers[0], "kube-apiserver-2")
	must(t, err)
	w.kubeconfig, err = w.servers[0].AgentKubeconfig(ctx)
	must(t, err)
	w.startHub(ctx, t)
	return w
}

func (w *world) startHub(ctx context.Context, t *testing.T) {
	t.Helper()
	state := filepath.Join(w.dir, "state")
	w.certs = filepath.Join(w.dir, "agent")
	for _, args := range [][]string{
		{"pki", "init", "--state", state},
		{"pki", "agent", "--state", state, "--cluster", clusterName, "--out", w.certs},
	} {
		if out, err := exec.CommandContext(ctx, w.culvert.CLI, args...).CombinedOutput(); err != nil {
			t.Fatalf("culvert %v: %v: %s", args, err, out)
		}
	}
	tokens := filepath.Join(w.dir, "tokens.csv")
	must(t, os.WriteFile(tokens, []byte(userToken+",ada,1,\"dev\"\n"), 0o600))
	ca, err := os.ReadFile(filepath.Join(w.certs, "ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the hub's CA file holds no certificate")
	}
	// HTTP/1.1, so that each client has a connection, as different people have.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, Protocols: protocols, MaxIdleConnsPerHost: 128}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport}
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "hub", Path: w.culvert.Hub, LogDir: w.dir,
		Args: []string{
			"--listen", w.address.Addr(), "--tls-name", testbed.HubAddress.String(), "--state", state,
			"--token-file", tokens, "--metrics-listen", w.metrics.Addr(),
		},
		Ready: func(ctx context.Context) error { _, err := scrape(ctx, w.metrics); return err },
	})
	must(t, err)
	t.Cleanup(func() { check(t, w.hub.Kill9()) })
}

// agent is an agent of the cluster, for both API servers.
type agent struct {
	*testbed.Process

	metrics *testbed.Port
}

func (w *world) startAgent(t *testing.T, name string) *agent {
	t.Helper()
	a := &agent{metrics: port(t)}
	var err error
	a.Process, err = testbed.StartProcess(within(t, time.Minute), testbed.ProcessConfig{
		Name: name, Path: w.culvert.Agent, LogDir: w.dir,
		Args: []string{
			"--hub", w.address.Addr(), "--cert-dir", w.certs, "--kubeconfig", w.kubeconfig, "--metrics-listen", a.metrics.Addr(),
			"--kubernetes-endpoint", strings.TrimPrefix(w.servers[0].URL, "https://"),
			"--kubernetes-endpoint", strings.TrimPrefix(w.servers[1].URL, "https://"),
		},
		Ready: func(ctx context.Context) error {
			text, err := get(ctx, http.DefaultClient, "http://"+a.metrics.Addr()+"/readyz?verbose", "")
			if err == nil && !strings.Contains(text, "kubernetes endpoints ok: 2 of 2 healthy") {
				err = fmt.Errorf("%s", text)
			}
			return err
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, a.Kill9()); http.DefaultClient.CloseIdleConnections() })
	return a
}

// get returns the body of a 200.
func get(ctx context.Context, client *http.Client, url, token string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(r)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return string(text), err
}

func scrape(ctx context.Context, at *testbed.Port) (string, error) {
	return get(ctx, http.DefaultClient, "http://"+at.Addr()+"/metrics", "")
}

// sum adds up the series of a metric that have all the parts.
func sum(text, metric string, parts ...string) float64 {
	total := 0.0
next:
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, metric+"{") && !strings.HasPrefix(line, metric+" ") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		if value, err := strconv.ParseFloat(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:len(line)-1], 64); err == nil {
			total += value
		}
	}
	return total
}

// requests returns how many an agent has answered.
func (a *agent) requests(ctx context.Context, t *testing.T) float64 {
	t.Helper()
	text, err := scrape(ctx, a.metrics)
	must(t, err)
	return sum(text, "culvert_requests_total", `kind="kubernetes"`)
}

// reviews returns how many reviews an API server has answered since its start.
func (w *world) reviews(ctx context.Context, t *testing.T, server int) float64 {
	t.Helper()
	text, err := w.servers[server].Kubectl(ctx, "get", "--raw", "/metrics")
	must(t, err)
	return sum(text, "apiserver_request_total", `resource="selfsubjectaccessreviews"`)
}
