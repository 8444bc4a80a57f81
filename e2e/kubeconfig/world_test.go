package kubeconfig

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// grant lets alice of the hub list namespaces and ask for tokens of one service
// account, which may list pods.
const grant = `apiVersion: v1
kind: Namespace
metadata: {name: ci}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: deployer, namespace: ci}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: alice}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [get, list]}
- {apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [deployer], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: alice}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: alice}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:alice"}
`

// rules keep mallory away from every cluster.
const rules = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: mallory, effect: deny, users: [mallory], kubernetes: [{verbs: ["*"]}]}
- {name: others, effect: allow, kubernetes: [{verbs: ["*"]}]}
`

// hosts gives every cluster a name at the hub, that of edge-pass with the TLS of its
// API server.
const hosts = `hosts:
  domain: edge.example.com
  names:
  - {name: cluster-edge-pass.edge.example.com, cluster: edge-pass, mode: passthrough}
`

// adminKubeconfig has the cluster's own administrator, in the context managed.
func adminKubeconfig() []byte { return testbed.Kubeconfigs(the.managed.AdminContext()) }

// world is a hub, a real cluster and the callers; its agents come and go.
type world struct {
	bed     *testbed.Bed
	managed *testbed.Cluster
	// agentKubeconfig is that of the cluster's agents.
	agentKubeconfig string

	port    *testbed.Port
	hub     *testbed.Process
	state   string
	alice   string // her token
	mallory string
	// aliceFile has alice's token.
	aliceFile string
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{alice: rand.Text(), mallory: rand.Text(), state: filepath.Join(testbed.Dir(), "hub"), aliceFile: filepath.Join(testbed.Dir(), "alice.token")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	tokens, policy, config := filepath.Join(testbed.Dir(), "tokens.csv"), filepath.Join(testbed.Dir(), "policy.yaml"), filepath.Join(testbed.Dir(), "hub.yaml")
	if err := errors.Join(
		// What people have: a home with a cache, and the programs in the PATH.
		os.Setenv("PATH", filepath.Join(testbed.Dir(), "bin")+":"+os.Getenv("PATH")),
		os.Setenv("HOME", testbed.Dir()), os.Setenv("XDG_CACHE_HOME", filepath.Join(testbed.Dir(), "cache")),
		os.Setenv("GORACE", "atexit_sleep_ms=0"), os.Setenv("NO_PROXY", "*"), os.Unsetenv("KUBECONFIG"),
		os.WriteFile(tokens, fmt.Appendf(nil, "%s,alice,1\n%s,mallory,2\n", w.alice, w.mallory), 0o600),
		os.WriteFile(w.aliceFile, []byte(w.alice+"\n"), 0o600),
		os.WriteFile(policy, []byte(rules), 0o600),
		os.WriteFile(config, []byte(hosts), 0o600),
		os.Mkdir(filepath.Join(testbed.Dir(), "k"), 0o700),
	); err != nil {
		return nil, err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: filepath.Join(testbed.Dir(), "k"), Servers: servers}); err != nil {
		return nil, err
	}
	if w.managed, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: "managed"}); err != nil {
		return nil, err
	}
	if err := w.managed.Apply(ctx, grant); err != nil {
		return nil, err
	}
	if w.agentKubeconfig, err = w.managed.AgentKubeconfig(ctx); err != nil {
		return nil, err
	}
	if w.port, err = testbed.ReservePort(nil, testbed.HubAddress); err != nil {
		return nil, err
	}
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"), LogDir: testbed.Dir(),
		Args: []string{
			"--listen", w.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--tls-name", "localhost", "--state", w.state,
			"--config", config, "--token-file", tokens, "--policy", policy, "--pass-through", "*", "--log-level", "debug", "--drain-timeout", "1s",
		},
		Ready: func(ctx context.Context) error {
			code, body, err := w.get(ctx, "/-/readyz", "")
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("%d: %s", code, body)
			}
			return err
		},
	})
	return w, err
}

func (w *world) url() string   { return "https://" + w.port.Addr() }
func (w *world) hubCA() string { return filepath.Join(w.state, "pki", "serving-ca.crt") }

func (w *world) stop() error {
	var errs []error
	if w.hub != nil {
		errs = append(errs, w.hub.Stop(context.Background()))
	}
	if w.port != nil {
		w.port.Close()
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	return errors.Join(errs...)
}

// leaked looks for the callers' tokens in every log.
func (w *world) leaked() error {
	logs, err := filepath.Glob(filepath.Join(testbed.Dir(), "*.log"))
	if err != nil || len(logs) < 2 {
		return fmt.Errorf("logs: %q, %w", logs, err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), w.alice) || strings.Contains(string(text), w.mallory) {
			return fmt.Errorf("a token is in %s", path)
		}
		if strings.Contains(string(text), "DATA RACE") {
			return fmt.Errorf("a data race is in %s", path)
		}
	}
	return nil
}

// get asks the hub.
func (w *world) get(ctx context.Context, path, token string) (int, string, error) {
	pool := x509.NewCertPool()
	if ca, err := os.ReadFile(w.hubCA()); err == nil {
		pool.AppendCertsFromPEM(ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url()+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// enrol makes the files of an agent's certificate, and runs no agent.
func (w *world) enrol(ctx context.Context, t *testing.T, cluster string) (dir string) {
	t.Helper()
	made, err := run(ctx, nil, "culvert", "token", "create", "--state", w.state, "--cluster", cluster)
	must(t, err)
	fields := strings.Fields(made.stdout)
	dir = filepath.Join(testbed.Dir(), "agent-"+cluster)
	_, err = run(ctx, nil, "culvert-agent", "join", "--token", fields[len(fields)-1], "--state", dir, "--enrol-only")
	must(t, err)
	return dir
}

// agent runs one with these files until the end of the test.
func (w *world) agent(ctx context.Context, t *testing.T, name, dir string) *testbed.Process {
	t.Helper()
	p, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + name, Path: bin("culvert-agent"), LogDir: testbed.Dir(),
		Args: []string{"--state", dir, "--kubeconfig", w.agentKubeconfig, "--pass-through", "--log-level", "debug", "--drain-timeout", "1s"},
	})
	must(t, err)
	t.Cleanup(func() { must(t, p.Stop(context.Background())) })
	return p
}

// kubeconfig runs culvert kubeconfig as alice.
func (w *world) kubeconfig(ctx context.Context, args ...string) (result, error) {
	return run(ctx, nil, "culvert", append([]string{"kubeconfig", "--hub", w.url(), "--hub-ca", w.hubCA()}, args...)...)
}

// kubectl runs kubectl with a file.
func kubectl(ctx context.Context, file string, args ...string) (string, error) {
	out, err := run(ctx, []string{"KUBECONFIG=" + file, "KUBECACHEDIR=" + filepath.Join(testbed.Dir(), "kubectl-cache"), "KUBERC=off"}, "kubectl", args...)
	return out.stdout, err
}

// lists fails the test unless kubectl lists namespaces with the file.
func lists(ctx context.Context, t *testing.T, file string, args ...string) {
	t.Helper()
	out, err := kubectl(ctx, file, append(args, "get", "ns", "-o", "name")...)
	if err != nil || !strings.Contains(out, "namespace/kube-system") {
		t.Errorf("kubectl get ns: %v: %q", err, out)
	}
}
