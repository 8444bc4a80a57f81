package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// issuerAddress is where the managed cluster's API server publishes its keys, as
// a name of its certificate.
var issuerAddress = netip.MustParseAddr("10.96.0.1")

// managedIssuer is the issuer of the tokens of its service accounts.
const managedIssuer = "https://managed.example"

// world is what the tests share. Clusters of the hub "main" are
//
//	managed    a real API server; callers are impersonated
//	open       the same API server, for which tokens that the hub does not know are
//	           handed on
//	recorder   a server that answers with what reached it; tokens are handed on to it
type world struct {
	bed                 *testbed.Bed
	hubCluster, managed *testbed.Cluster
	node                *testbed.Node
	traces              *testbed.Collector
	recorder            *recorder
	// good is a provider that is there, late one that is not until a test starts it.
	good, late *provider
	users      *authority // signs certificates of callers
	shop       *shop
	hub        *hub
	agents     []*testbed.Process
	// agentMetrics is where the agent of cluster managed has its metrics.
	agentMetrics *testbed.Port

	// Tokens of the hub's token file: ada is in group dev, boss may impersonate,
	// root is in system:masters, eve is refused by the hub's policy.
	ada, boss, root, eve string
	// passer is a token of the managed cluster's own token file.
	passer string
	// robot is a service account of the hub's cluster.
	robot string

	mu      sync.Mutex
	secrets map[string]string // by a name for messages
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{
		ada: rand.Text(), boss: rand.Text(), root: rand.Text(), eve: rand.Text(), passer: rand.Text(), secrets: map[string]string{},
	}
	the = w // for what plants secrets while it starts
	for name, token := range map[string]string{"ada's token": w.ada, "boss's token": w.boss, "root's token": w.root, "eve's token": w.eve, "passer's token": w.passer} {
		w.plant(name, token)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	for _, start := range []func(context.Context) error{w.startTraces, w.startClusters, w.startProviders, w.startShop, w.startHub, w.startAgents} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) startTraces(ctx context.Context) (err error) {
	w.traces, err = testbed.StartCollector(ctx)
	return err
}

// startClusters starts the API servers. The managed one knows tokens of the hub as
// those of an all-powerful user: a trap, should one ever arrive there. It records
// who asked for what, and traces every request.
func (w *world) startClusters(ctx context.Context) error {
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	var nowhere *testbed.Namespace // that is, the tests' own network
	if err := nowhere.AddAddress(issuerAddress); err != nil {
		return err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	tracing, audit := filepath.Join(dir, "tracing.yaml"), filepath.Join(dir, "audit.yaml")
	err = errors.Join(
		os.WriteFile(tracing, fmt.Appendf(nil, tracingConfiguration, w.traces.GRPC), 0o600),
		os.WriteFile(audit, []byte(auditPolicy), 0o600))
	if err != nil {
		return err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return err
	}
	trap := func(token string) testbed.StaticToken {
		return testbed.StaticToken{Token: token, User: "trap", UID: "trap", Groups: []string{"system:masters"}}
	}
	clusters, err := w.bed.StartClusters(ctx, testbed.ClusterConfig{
		Name:      "hub",
		ExtraArgs: []string{"--feature-gates=ConstrainedImpersonation=true"}, // for TestAgentAccounts; alpha in this version
	}, testbed.ClusterConfig{
		Name:   "managed",
		Issuer: managedIssuer,
		Tokens: []testbed.StaticToken{
			trap(w.ada), trap(w.boss), trap(w.root), trap(w.eve), {Token: w.passer, User: "passer", UID: "passer-uid", Groups: []string{"insiders"}},
		},
		ExtraArgs: []string{
			"--bind-address=0.0.0.0", "--advertise-address=" + issuerAddress.String(),
			"--tracing-config-file=" + tracing,
			"--audit-policy-file=" + audit, "--audit-log-path=" + w.auditLog(), "--audit-log-mode=blocking",
		},
	})
	if err != nil {
		return err
	}
	w.hubCluster, w.managed = clusters[0], clusters[1]
	for _, c := range clusters {
		w.plant("the administrator's token of "+c.Name, c.AdminContext().Token)
	}
	if err := w.managed.Apply(ctx, managedObjects); err != nil {
		return err
	}
	if w.node, err = w.managed.StartNode(ctx, "node"); err != nil {
		return err
	}
	return w.node.AddPod(ctx, "work", "worker")
}

const (
	// tracingConfiguration is kube-apiserver's
	// (https://kubernetes.io/docs/concepts/cluster-administration/system-traces/).
	tracingConfiguration = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: %s\nsamplingRatePerMillion: 1000000\n"
	// auditPolicy makes it record who asked for what.
	auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
	// managedObjects are what the managed cluster lets the hub's callers do: the
	// names are as the hub maps them. Everybody may ask for the keys of its tokens.
	managedObjects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: work}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: first, namespace: work}, data: {key: value}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: caller, namespace: work}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: developers, namespace: work}
  rules:
  - {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods], verbs: [get]}
  - {apiGroups: [""], resources: [pods/exec], verbs: [get, create]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: developers, namespace: work}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: developers}
  subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "cluster:hub:dev"}
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:system:serviceaccount:team:robot"}
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: insiders}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: keys}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:service-account-issuer-discovery"}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:unauthenticated"}]
`
)

// auditLog is the managed cluster's own.
func (w *world) auditLog() string { return filepath.Join(testbed.Dir(), "kube-audit.log") }

func (w *world) startProviders(ctx context.Context) (err error) {
	if w.good, err = newProvider("good"); err != nil {
		return err
	}
	if w.late, err = newProvider("late"); err != nil {
		return err
	}
	if w.users, err = newAuthority(); err != nil {
		return err
	}
	return w.good.start(ctx)
}

// startAgents starts an agent a cluster and waits until each serves.
func (w *world) startAgents(ctx context.Context) (err error) {
	if w.recorder, err = startRecorder(filepath.Join(testbed.Dir(), "recorder.kubeconfig")); err != nil {
		return err
	}
	w.plant("the recorder's agent's token", w.recorder.agentToken)
	if w.agentMetrics, err = testbed.ReservePort(nil, loopback); err != nil {
		return err
	}
	kubeconfig, err := w.managed.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	for _, a := range []struct{ cluster, kubeconfig string }{
		{"managed", kubeconfig}, {"open", kubeconfig}, {"recorder", w.recorder.kubeconfig},
	} {
		agent, err := w.hub.startAgent(ctx, a.cluster, w.agentConfiguration(a.cluster), "--kubeconfig", a.kubeconfig)
		if err != nil {
			return err
		}
		w.agents = append(w.agents, agent)
		if err := w.awaitAgent(ctx, a.cluster, agent); err != nil {
			return err
		}
	}
	return nil
}

// awaitAgent waits until the agent of a cluster serves.
func (w *world) awaitAgent(ctx context.Context, cluster string, agent *testbed.Process) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := testbed.Poll(ctx, "the tunnel of "+cluster, func(ctx context.Context) error {
		got, err := w.hub.ask(ctx, call{path: "/" + cluster + "/version", token: w.ada})
		if err == nil && got.status != 200 {
			err = fmt.Errorf("%d: %s", got.status, got.body)
		}
		return err
	})
	if err != nil {
		log, read := os.ReadFile(agent.Log())
		return errors.Join(err, read, fmt.Errorf("the agent's log: %s", log[max(0, len(log)-4<<10):]))
	}
	return nil
}

// plant registers what must be in no log at the end.
func (w *world) plant(name, secret string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if secret != "" {
		w.secrets[name+" …"+secret[max(0, len(secret)-6):]] = secret
	}
}

// close ends everything and looks through all logs.
func (w *world) close() error {
	if err := w.stop(); err != nil {
		return err
	}
	logs, err := culvertLogs()
	if err != nil {
		return err
	}
	return errors.Join(w.leaked(logs), racesIn(logs))
}

func (w *world) stop() error {
	var errs []error
	for _, p := range w.agents {
		errs = append(errs, p.Stop(context.Background()))
	}
	if w.hub != nil {
		errs = append(errs, w.hub.stop())
	}
	if w.recorder != nil {
		w.recorder.server.Close()
	}
	if w.agentMetrics != nil {
		w.agentMetrics.Close()
	}
	if w.shop != nil {
		w.shop.server.Close()
	}
	for _, p := range []*provider{w.good, w.late} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if w.node != nil {
		errs = append(errs, w.node.Close())
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	if w.traces != nil {
		errs = append(errs, w.traces.Close())
	}
	return errors.Join(errs...)
}

// tokenOf returns the token in a kubeconfig of the test bed.
func tokenOf(kubeconfig string) (string, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), `token: "`)
	token, _, ended := strings.Cut(rest, `"`)
	if !ok || !ended {
		return "", fmt.Errorf("%s holds no token", kubeconfig)
	}
	return token, nil
}
