package client

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/e2e/testbed"
)

// world is a hub and two clusters, edge-1 and edge-2, each in a private network with its
// agent. In that of edge-1 there is PostgreSQL, called db.prod, and on 192.0.2.2
//
//	7001    what greets whoever connects
//	7002    an echo
//
// far is edge-1 by a second agent, whose way to the hub a test can make long.
type world struct {
	servers    testbed.Servers
	postgreSQL testbed.Debian

	private   []*testbed.PrivateNetwork
	bed       *testbed.Bed
	clusters  []*testbed.Cluster
	node      *testbed.Node
	listeners []io.Closer
	serving   sync.WaitGroup

	postgres *testbed.Postgres
	port     *testbed.Port
	hub      *testbed.Process
	agents   []*testbed.Process
	users    *authority // signs certificates of callers
	farWay   *relay     // of the agent of far

	mu     sync.Mutex
	tokens map[string]bool // tokens of ada; false for one that was revoked
}

const (
	greeter = "192.0.2.2:7001"
	echo    = "192.0.2.2:7002"
	podEcho = "127.0.0.1:7003" // is in every pod of edge-1
)

const hubPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: ada
  effect: allow
  users: [ada]
  kubernetes: [{verbs: ["*"]}]
  tcp:
  - {hosts: ["*.prod"], ports: [1024-65535]}
  - {cidrs: [192.0.2.0/24], ports: [1024-65535]}
`

const agentPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: api
  effect: allow
  kubernetes: [{verbs: ["*"]}]
- name: prod
  effect: allow
  tcp:
  - {hosts: ["*.prod"], cidrs: [192.0.2.0/24], ports: ["*"]}
  - {cidrs: [192.0.2.0/24], ports: ["*"]}
`

// objects are in both clusters.
const objects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: work}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: ada}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}]
- apiVersion: v1
  kind: Pod
  metadata: {name: worker-CLUSTER, namespace: work}
  spec: {nodeName: node, containers: [{name: main, image: none}]}
`

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{tokens: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	// Before the environment has another cache.
	var serversErr, sqlErr, usersErr error
	w.servers, serversErr = testbed.ServerBinaries(ctx, os.Stderr)
	w.postgreSQL, sqlErr = testbed.PostgreSQL(ctx, os.Stderr)
	w.users, usersErr = newAuthority()
	if err := errors.Join(
		serversErr, sqlErr, usersErr,
		os.Setenv("HOME", testbed.Dir()), os.Setenv("XDG_CACHE_HOME", file("cache")), os.Setenv("XDG_CONFIG_HOME", file("config")),
		os.Setenv("GORACE", "atexit_sleep_ms=0"),
		os.WriteFile(file("hub-policy.yaml"), []byte(hubPolicy), 0o600), os.WriteFile(file("agent-policy.yaml"), []byte(agentPolicy), 0o600),
		os.Mkdir(file("k"), 0o700),
	); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file("users.crt"), w.users.pem, 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file("ada.token"), []byte(w.token(time.Hour)+"\n"), 0o600); err != nil {
		return nil, err
	}
	for _, start := range []func(context.Context) error{w.startClusters, w.startTargets, w.startHub, w.startAgents} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) startClusters(ctx context.Context) (err error) {
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: file("k"), Servers: w.servers}); err != nil {
		return err
	}
	var configs []testbed.ClusterConfig
	for _, name := range []string{"edge-1", "edge-2"} {
		private, err := testbed.NewPrivateNetwork()
		if err != nil {
			return err
		}
		w.private = append(w.private, private)
		configs = append(configs, testbed.ClusterConfig{Name: name, Namespace: private.Inside})
	}
	if w.clusters, err = w.bed.StartClusters(ctx, configs...); err != nil {
		return err
	}
	if w.node, err = w.clusters[0].StartNode(ctx, "node"); err != nil {
		return err
	}
	for _, c := range w.clusters {
		if err := c.Apply(ctx, strings.ReplaceAll(objects, "CLUSTER", c.Name)); err != nil {
			return err
		}
	}
	return w.node.AwaitPod(ctx, "work", "worker-edge-1")
}

func (w *world) startHub(ctx context.Context) (err error) {
	if w.port, err = testbed.ReservePort(nil, testbed.HubAddress); err != nil {
		return err
	}
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"), LogDir: testbed.Dir(),
		Args: []string{
			"--listen", w.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--token-file", file("tokens.csv"), "--policy", file("hub-policy.yaml"),
			"--client-ca", file("users.crt"), "--state", file("hub"), "--log-level", "debug", "--drain-timeout", "1s",
		},
		Ready: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.port.Addr())
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return err
}

func hubCA() string { return filepath.Join(file("hub"), "pki", "serving-ca.crt") }

// startAgents starts the agents, and waits until they serve.
func (w *world) startAgents(ctx context.Context) (err error) {
	if w.farWay, err = newRelay(w.port.Addr()); err != nil {
		return err
	}
	for i, name := range []string{"edge-1", "edge-2", "far"} {
		cluster, hub := w.clusters[i%2], w.port.Addr()
		if name == "far" {
			hub = w.farWay.addr()
		}
		if err := w.startAgent(ctx, name, hub, cluster); err != nil {
			return fmt.Errorf("agent of %s: %w", name, err)
		}
	}
	return w.awaitAgents(ctx)
}

// awaitAgents waits until every agent serves.
func (w *world) awaitAgents(ctx context.Context) error {
	c, err := client.New(w.config(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range []string{"edge-1", "edge-2", "far"} {
		err := testbed.Poll(ctx, "cluster "+name, func(ctx context.Context) error {
			p, err := c.Ping(ctx, name)
			if err == nil && p.TargetError != "" {
				err = errors.New(p.TargetError)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) startAgent(ctx context.Context, name, hub string, cluster *testbed.Cluster) error {
	out := file("agent-" + name)
	if text, err := exec.CommandContext(ctx, bin("culvert"), "pki", "agent", "--state", file("hub"), "--cluster", name, "--out", out).CombinedOutput(); err != nil {
		return fmt.Errorf("pki agent: %w: %s", err, text)
	}
	kubeconfig, err := cluster.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	agent, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + name, Path: bin("culvert-agent"), LogDir: testbed.Dir(), Namespace: cluster.Namespace,
		Args: []string{
			"--hub", hub, "--hub-ca", filepath.Join(out, "ca.crt"), "--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"),
			"--kubeconfig", kubeconfig, "--policy", file("agent-policy.yaml"), "--dns-server", testbed.InsideAddress.String() + ":53", "--log-level", "debug",
		},
	})
	if err != nil {
		return err
	}
	w.agents = append(w.agents, agent)
	return nil
}

// token makes a token of ada that says that it ends after life, as an issuer's does; the
// hub believes its file of tokens.
func (w *world) token(life time.Duration) string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	token := part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(life).Unix())) + "." + rand.Text()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[token] = true
	if err := w.writeTokens(); err != nil {
		panic(err) // the scenery's own folder
	}
	return token
}

// revoke takes a token back.
func (w *world) revoke(token string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[token] = false
	return w.writeTokens()
}

// writeTokens replaces the hub's file. mu is held.
func (w *world) writeTokens() error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s,nobody,0\n", rand.Text()) // a file without tokens is none
	for token, good := range w.tokens {
		if good {
			fmt.Fprintf(&text, "%s,ada,1\n", token)
		}
	}
	next := file("tokens.csv.next")
	return errors.Join(os.WriteFile(next, []byte(text.String()), 0o600), os.Rename(next, file("tokens.csv")))
}

// config is that of a client as ada.
func (w *world) config(log *slog.Logger) client.Config {
	return client.Config{Hub: "https://" + w.port.Addr(), HubCA: hubCA(), TokenFile: file("ada.token"), Logger: log}
}

// newClient returns a client until the end of the test.
func newClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

// close ends everything and looks for what must be in no log.
func (w *world) close() error {
	var errs []error
	for _, p := range append(w.agents, w.hub) {
		if p != nil {
			errs = append(errs, p.Stop(context.Background()))
		}
	}
	if w.farWay != nil {
		w.farWay.close()
	}
	if w.port != nil {
		w.port.Close()
	}
	if w.postgres != nil {
		errs = append(errs, w.postgres.Close())
	}
	for _, c := range w.listeners {
		_ = c.Close() // nothing is left of it either way
	}
	w.serving.Wait()
	if w.node != nil {
		errs = append(errs, w.node.Close())
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	for _, p := range w.private {
		errs = append(errs, p.Close())
	}
	logs, err := filepath.Glob(file("*.log"))
	errs = append(errs, err)
	for _, log := range logs {
		text, err := os.ReadFile(log)
		errs = append(errs, err)
		for token := range w.tokens {
			if strings.Contains(string(text), token) {
				errs = append(errs, fmt.Errorf("%s has a credential in it", log))
			}
		}
		if strings.Contains(string(text), "DATA RACE") {
			errs = append(errs, fmt.Errorf("%s has a data race in it", log))
		}
	}
	return errors.Join(errs...)
}

// file is one of the run's folder.
func file(name string) string { return filepath.Join(testbed.Dir(), name) }

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }
