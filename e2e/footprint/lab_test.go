package footprint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// clusterName is the managed cluster's name at every hub.
	clusterName = "managed"
	// A user of the hubs, and their token.
	userToken = "ada-token"
	tokenFile = userToken + ",ada,1,\"dev\"\n"
)

// serviceAddress is the cluster IP of the service that stands for all services:
// its servers differ by port.
var serviceAddress = netip.MustParseAddr("10.96.7.7")

// objects are what the tests find in the managed cluster. The user is named as
// the hub maps them.
const objects = `apiVersion: v1
kind: Service
metadata: {name: target, namespace: default}
spec:
  clusterIP: 10.96.7.7
  ports: [{name: http, port: 80}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: editor}
rules:
- {apiGroups: [""], resources: [configmaps, services, namespaces], verbs: [get, list, watch, patch, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ada}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: editor}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}
`

// lab is what all tests share: one managed cluster in one private network.
type lab struct {
	culvert         testbed.Culvert
	private         *testbed.PrivateNetwork
	managed         *testbed.Cluster
	agentKubeconfig string
	dir             string
}

// startLab starts the private network with its API server and DNS.
func startLab(t *testing.T) *lab {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	bin := binDir(testbed.Dir())
	l := &lab{culvert: testbed.Culvert{
		Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert"),
	}}
	l.dir, err = os.MkdirTemp("", "lab-") //nolint:usetesting // t.TempDir would put the test's name into the path of a Unix socket
	must(t, err)
	l.private, err = testbed.NewPrivateNetwork()
	must(t, err)
	t.Cleanup(func() { check(t, l.private.Close()) })
	must(t, l.private.Inside.AddAddress(serviceAddress))
	bed, err := testbed.New(ctx, testbed.Config{Dir: l.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	l.managed, err = bed.StartCluster(ctx, testbed.ClusterConfig{Name: clusterName, Namespace: l.private.Inside})
	must(t, err)
	must(t, l.managed.Apply(ctx, objects))
	l.agentKubeconfig, err = l.managed.AgentKubeconfig(ctx)
	must(t, err)
	_, err = bed.StartDNS(ctx, l.managed)
	must(t, err)
	return l
}

// serve runs an HTTP server behind the service of the managed cluster and returns
// its path at a hub, without a slash at the end. The test's end cuts its requests.
func (l *lab) serve(t *testing.T, ln net.Listener, handler http.Handler) (path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go serveHTTP(server, ln, ended)
	t.Cleanup(func() {
		cancel()
		check(t, server.Close())
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return fmt.Sprintf("/%s/api/v1/namespaces/default/services/http:target:%d/proxy-service",
		clusterName, netip.MustParseAddrPort(ln.Addr().String()).Port())
}

// serveHTTP sends one result, when the server is closed.
func serveHTTP(server *http.Server, ln net.Listener, ended chan<- error) { ended <- server.Serve(ln) }

// hub is a hub process with one agent process.
type hub struct {
	process, agent *testbed.Process
	address        string
	ca             []byte
}

// startHub runs a hub and an agent, and returns once requests reach the managed
// cluster's API server.
func (l *lab) startHub(t *testing.T, name string) *hub {
	t.Helper()
	ctx := within(t, time.Minute)
	dir := filepath.Join(l.dir, name)
	state, certs, tokens := filepath.Join(dir, "state"), filepath.Join(dir, "certs"), filepath.Join(dir, "tokens.csv")
	must(t, os.Mkdir(dir, 0o700))
	for _, args := range [][]string{
		{"pki", "init", "--state", state},
		{"pki", "agent", "--state", state, "--cluster", clusterName, "--out", certs},
	} {
		if out, err := exec.CommandContext(ctx, l.culvert.CLI, args...).CombinedOutput(); err != nil {
			t.Fatalf("culvert %v: %v: %s", args, err, out)
		}
	}
	must(t, os.WriteFile(tokens, []byte(tokenFile), 0o600))
	ca := filepath.Join(certs, "ca.crt")
	port, err := testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(port.Close)
	h := &hub{address: port.Addr()}
	h.ca, err = os.ReadFile(ca)
	must(t, err)
	policy, err := testbed.WriteOpenPolicy(dir)
	must(t, err)
	h.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "hub", Path: l.culvert.Hub, LogDir: dir,
		Args: []string{
			"--listen", h.address, "--tls-name", testbed.HubAddress.String(), "--state", state, "--token-file", tokens, "--policy", policy,
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, h.process.Kill9()) })
	h.agent, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "agent", Path: l.culvert.Agent, LogDir: dir, Namespace: l.private.Inside,
		Args: []string{
			"--hub", h.address, "--hub-ca", ca,
			"--cert", filepath.Join(certs, "tls.crt"), "--key", filepath.Join(certs, "tls.key"),
			"--kubeconfig", l.agentKubeconfig, "--dns-server", testbed.DNSAddress.String(),
			"--allow-service", "default/target",
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, h.agent.Kill9()) })
	c := h.client(t, nil)
	must(t, testbed.Poll(ctx, "a request through the tunnel", func(ctx context.Context) error {
		return h.get(ctx, c, "/"+clusterName+"/version")
	}))
	return h
}

// client returns a user's HTTP/1.1 client of the hub. The test's end closes its
// idle connections.
func (h *hub) client(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(h.ca) {
		t.Fatal("the hub's CA file holds no certificate")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		Protocols:       protocols,
		DialContext:     dial,
		ReadBufferSize:  1 << 10,
		WriteBufferSize: 1 << 10,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// open starts a request; the caller closes the answer's body. Its status is 200.
func (h *hub) open(ctx context.Context, c *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+h.address+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+userToken)
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(resp.Body)
		return nil, errors.Join(fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(text))), err, resp.Body.Close())
	}
	return resp, nil
}

// get makes one GET request and reads the whole answer.
func (h *hub) get(ctx context.Context, c *http.Client, path string) error {
	resp, err := h.open(ctx, c, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
