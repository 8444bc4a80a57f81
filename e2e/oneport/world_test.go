package oneport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// port is the one that everything has, in a network of the run's own.
	port = "443"
	// domain is where clusters have their names.
	domain = "edge.test"
	// callers is how many users each side knows.
	callers = 25
)

// world is a hub with one port, and two clusters with an agent each: east, whose
// name's TLS ends at the hub, and west, whose name's TLS ends at its API server.
type world struct {
	bed        *testbed.Bed
	east, west *testbed.Cluster
	hub        *testbed.Process
	agents     []*testbed.Process
	hubCA      []byte         // PEM
	roots      *x509.CertPool // of the hub
	westRoots  *x509.CertPool
	// plain and secure are services of east's network: what goes in comes out, in the
	// clear and in TLS of the service's own.
	plain, secure *echo
}

func address() string { return net.JoinHostPort(testbed.HubAddress.String(), port) }

func state() string { return filepath.Join(testbed.Dir(), "hub") }

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := w.startClusters(ctx); err != nil {
		return nil, err
	}
	if w.plain, err = startEcho("plain", nil); err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(w.west.Dir, "serving.crt"), filepath.Join(w.west.Dir, "serving.key"))
	if err != nil {
		return nil, err
	}
	if w.secure, err = startEcho("secure", &certificate); err != nil {
		return nil, err
	}
	if err := w.startHub(ctx); err != nil {
		return nil, err
	}
	for _, c := range []*testbed.Cluster{w.east, w.west} {
		if err := w.startAgent(ctx, c); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// startClusters starts the API servers. What a cluster is called stands in a
// ConfigMap that everybody may read.
func (w *world) startClusters(ctx context.Context) error {
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return err
	}
	var tokens []testbed.StaticToken
	for i := range callers {
		tokens = append(tokens, testbed.StaticToken{Token: token("west", i), User: name("west", i), UID: name("west", i)})
	}
	clusters, err := w.bed.StartClusters(ctx, testbed.ClusterConfig{Name: "east"},
		testbed.ClusterConfig{Name: "west", Tokens: tokens, Names: []string{"cluster-west." + domain, "secure." + domain}})
	if err != nil {
		return err
	}
	w.east, w.west = clusters[0], clusters[1]
	for _, c := range clusters {
		if err := c.Apply(ctx, fmt.Sprintf(objects, c.Name)); err != nil {
			return err
		}
	}
	ca, err := os.ReadFile(w.west.CAFile)
	if err != nil {
		return err
	}
	w.westRoots = x509.NewCertPool()
	w.westRoots.AppendCertsFromPEM(ca)
	return nil
}

const objects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: whoami, namespace: default}, data: {cluster: %s}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: reader}
  rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: readers}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}]
`

// name and token are of one of the users that a side knows.
func name(side string, i int) string { return fmt.Sprintf("%s-user-%d", side, i) }

func token(side string, i int) string { return fmt.Sprintf("%s-secret-token-%d", side, i) }

func (w *world) startHub(ctx context.Context) error {
	if err := culvert(ctx, "pki", "init", "--state", state()); err != nil {
		return err
	}
	ca, err := os.ReadFile(caFile())
	if err != nil {
		return err
	}
	w.hubCA, w.roots = ca, x509.NewCertPool()
	w.roots.AppendCertsFromPEM(ca)
	var tokens strings.Builder
	for i := range callers {
		fmt.Fprintf(&tokens, "%s,%s,%d\n", token("hub", i), name("hub", i), i)
	}
	tokenFile := filepath.Join(testbed.Dir(), "tokens.csv")
	if err := os.WriteFile(tokenFile, []byte(tokens.String()), 0o600); err != nil {
		return err
	}
	policy := filepath.Join(testbed.Dir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte(hubPolicy), 0o600); err != nil {
		return err
	}
	config := filepath.Join(testbed.Dir(), "hub.yaml")
	text := fmt.Sprintf(hubConfig, address(), state(), testbed.HubAddress, tokenFile, policy, domain, w.plain.port, w.secure.port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"), LogDir: testbed.Dir(), Args: []string{"--config", config},
		Ready: func(ctx context.Context) error { return w.get(ctx, "/-/readyz", "") },
	})
	return err
}

// hubPolicy lets callers reach the services, which are on the agents' own machine.
const hubPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: services, effect: allow, tcp: [{cidrs: [127.0.0.1/32]}]}
`

const hubConfig = `listen: ["%s"]
state: %s
tlsNames: ["%s", hub.edge.test]
tokenFile: %s
policy: {file: %s}
drainTimeout: 2s
connect:
  ports: ["*"]
  routes: [{cidrs: [127.0.0.1/32], cluster: east}]
hosts:
  domain: %s
  names:
  - {name: cluster-west.edge.test, cluster: west, mode: passthrough}
  - {name: plain.edge.test, cluster: east, address: "127.0.0.1:%s"}
  - {name: secure.edge.test, cluster: east, address: "127.0.0.1:%s", mode: passthrough}
`

func caFile() string { return filepath.Join(state(), "pki", "serving-ca.crt") }

func (w *world) startAgent(ctx context.Context, c *testbed.Cluster) error {
	kubeconfig, err := c.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(testbed.Dir(), "agent-"+c.Name)
	if err := culvert(ctx, "pki", "agent", "--state", state(), "--cluster", c.Name, "--out", dir); err != nil {
		return err
	}
	agent, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + c.Name, Path: bin("culvert-agent"), LogDir: testbed.Dir(), Args: []string{
			"--hub", address(), "--hub-ca", caFile(), "--cert", filepath.Join(dir, "tls.crt"), "--key", filepath.Join(dir, "tls.key"),
			"--kubeconfig", kubeconfig, "--drain-timeout", "2s", "--pass-through",
			"--allow-address", "127.0.0.1:" + w.plain.port, "--allow-address", "127.0.0.1:" + w.secure.port,
		},
	})
	if err != nil {
		return err
	}
	w.agents = append(w.agents, agent)
	return testbed.Poll(ctx, "the tunnel of "+c.Name, func(ctx context.Context) error {
		return w.get(ctx, "/"+c.Name+"/version", token("hub", 0))
	})
}

// get makes one request by path, on a connection of its own, which has to succeed.
func (w *world) get(ctx context.Context, path, bearer string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	_, err := call(ctx, &http.Client{Transport: transport}, http.MethodGet, "https://"+address()+path, bearer, nil)
	return err
}

// close ends everything and looks through the logs.
func (w *world) close() error {
	var errs []error
	processes := w.agents
	if w.hub != nil {
		processes = append(processes, w.hub)
	}
	for _, p := range processes {
		errs = append(errs, p.Stop(context.Background()))
		text, err := os.ReadFile(p.Log())
		errs = append(errs, err)
		for _, bad := range []string{"WARNING: DATA RACE", "panic", "secret-token"} {
			if i := bytes.Index(text, []byte(bad)); i >= 0 {
				errs = append(errs, fmt.Errorf("%s: %s", p.Log(), text[i:min(len(text), i+4096)]))
			}
		}
	}
	for _, e := range []*echo{w.plain, w.secure} {
		if e != nil {
			errs = append(errs, e.close())
		}
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	return errors.Join(errs...)
}
