package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	// clientPort and agentPort are those of OCM's cluster-proxy. The network is
	// the run's own, so that every port is free.
	clientPort, agentPort = "9092", "8091"
	// seedName is the host of the URLs in OCM's walkthrough.
	seedName = "cluster-proxy-addon-user.open-cluster-management-addon.svc.cluster.local"
	// hubPrefix marks users and groups of the hub in a managed cluster.
	hubPrefix = "cluster:hub:"
	// adaToken is of the hub's token file; graceToken of the hub cluster's.
	adaToken, graceToken = "ada-secret-token", "grace-secret-token"
)

// apiAddress is that of the managed cluster's Service kubernetes. It exists in
// the private network only.
var apiAddress = netip.MustParseAddr("10.96.0.1")

// world is everything that runs. Its fields do not change once it is started.
type world struct {
	dir             string
	culvert         testbed.Culvert
	private, office *testbed.PrivateNetwork
	bed             *testbed.Bed
	hub, managed    *testbed.Cluster
	hubProcess      *testbed.Process
	agentProcess    *testbed.Process
	apiPort         string // of the managed cluster's API server, at every address of its network
	ca              []byte // verifies the hub
	caFile          string
	services        *services
	ops             user // may do everything in the managed cluster
}

// user is somebody who calls the hub.
type user struct {
	name, token string // the hub's name of them
	kubectl     testbed.Kubectl
}

// startWorld starts all parts; the end of t stops them, and fails t if one of
// Culvert's processes did not end in order or met a data race.
func startWorld(t *testing.T) *world {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	w := &world{dir: tempDir(t, "kube-"), culvert: binaries()}
	w.private, w.office = privateNetwork(t), privateNetwork(t)
	must(t, w.private.RouteInto()) // a missing route shall not be what keeps callers out
	must(t, w.private.Inside.AddAddress(apiAddress))
	w.startClusters(ctx, t)
	w.services = startServices(ctx, t, w)
	must(t, w.managed.Apply(ctx, managedObjects))
	_, err := w.bed.StartDNS(ctx, w.managed)
	must(t, err)
	w.startHub(ctx, t)
	w.startAgent(ctx, t)
	w.ops = w.serviceAccount(ctx, t, "operators", "ops")
	must(t, testbed.Poll(ctx, "the tunnel", func(ctx context.Context) error {
		_, err := w.ops.kubectl.Run(ctx, "get", "--raw", "/version")
		return err
	}))
	return w
}

func privateNetwork(t *testing.T) *testbed.PrivateNetwork {
	t.Helper()
	network, err := testbed.NewPrivateNetwork()
	must(t, err)
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	return network
}

func (w *world) startClusters(ctx context.Context, t *testing.T) {
	t.Helper()
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	w.bed, err = testbed.New(ctx, testbed.Config{Dir: w.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() {
		if err := w.bed.Close(); err != nil {
			t.Error(err)
		}
	})
	clusters, err := w.bed.StartClusters(ctx,
		testbed.ClusterConfig{Name: "hub", Tokens: []testbed.StaticToken{
			{Token: graceToken, User: "grace", UID: "grace-uid", Groups: []string{"ops"}},
		}},
		testbed.ClusterConfig{Name: "managed", Namespace: w.private.Inside,
			// On the cluster IP too, in the place of kube-proxy.
			ExtraArgs: []string{"--bind-address=0.0.0.0"}})
	must(t, err)
	w.hub, w.managed = clusters[0], clusters[1]
	_, w.apiPort, _ = strings.Cut(strings.TrimPrefix(w.managed.URL, "https://"), ":")
}

// startHub starts culvert-hub at every address of its machine, with the names of
// the certificate in OCM's walkthrough and with two sources of identity.
func (w *world) startHub(ctx context.Context, t *testing.T) {
	t.Helper()
	reviewer, err := w.hub.ReviewerKubeconfig(ctx)
	must(t, err)
	w.cli(ctx, t, "pki", "init", "--state", w.state())
	w.caFile = filepath.Join(w.state(), "pki", "serving-ca.crt")
	w.ca, err = os.ReadFile(w.caFile)
	must(t, err)
	tokens := filepath.Join(w.dir, "tokens.csv")
	must(t, os.WriteFile(tokens, []byte(adaToken+`,ada,ada-uid,"dev,system:masters"`+"\n"), 0o600))
	policy, err := testbed.WriteOpenPolicy(w.dir)
	must(t, err)
	w.hubProcess = w.process(ctx, t, testbed.ProcessConfig{
		Name: "culvert-hub", Path: w.culvert.Hub,
		Args: []string{
			"--listen", ":" + clientPort, "--agent-listen", testbed.HubAddress.String() + ":" + agentPort,
			"--state", w.state(), "--tls-name", testbed.HubAddress.String(), "--tls-name", "127.0.0.1",
			"--tls-name", "cluster-proxy-addon-user", "--tls-name", seedName,
			"--token-review-kubeconfig", reviewer, "--token-file", tokens,
			"--policy", policy,
		},
		Ready: func(ctx context.Context) error {
			res, err := send(ctx, w.caller(t, 2), "GET", "https://"+hubHost+"/-/readyz", nil)
			if err == nil && res.status != http.StatusOK {
				err = fmt.Errorf("readyz: %d", res.status)
			}
			return err
		},
	})
}

func (w *world) state() string { return filepath.Join(w.dir, "hub-state") }

// startAgent starts culvert-agent in the private network. It is told an API
// server by a name that exists there only.
func (w *world) startAgent(ctx context.Context, t *testing.T) {
	t.Helper()
	_, err := w.managed.AgentKubeconfig(ctx)
	must(t, err)
	token, err := w.managed.CreateToken(ctx, "culvert-agent", "culvert-agent")
	must(t, err)
	kubeconfig := filepath.Join(w.dir, "agent.kubeconfig")
	server := "https://kubernetes.default.svc.cluster.local:" + w.apiPort
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(server, w.managed.AdminContext().CA, token), 0o600))
	args := append(w.agentCertificate(ctx, t, w.state(), "managed"),
		"--hub", testbed.HubAddress.String()+":"+agentPort,
		"--kubeconfig", kubeconfig, "--dns-server", testbed.DNSAddress.String(), "--service-ca", w.services.caFile)
	for _, rule := range allowedServices {
		args = append(args, "--allow-service", rule)
	}
	w.agentProcess = w.process(ctx, t, testbed.ProcessConfig{
		Name: "culvert-agent", Path: w.culvert.Agent, Args: args, Namespace: w.private.Inside,
	})
}

// agentCertificate issues a certificate for an agent of cluster and returns the
// flags that name its files.
func (w *world) agentCertificate(ctx context.Context, t *testing.T, state, cluster string) []string {
	t.Helper()
	out := filepath.Join(w.dir, "agent-"+cluster)
	w.cli(ctx, t, "pki", "agent", "--state", state, "--cluster", cluster, "--out", out)
	return []string{
		"--hub-ca", filepath.Join(out, "ca.crt"), "--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"),
	}
}

// cli runs the culvert command.
func (w *world) cli(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, w.culvert.CLI, args...).CombinedOutput(); err != nil {
		t.Fatalf("culvert %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// process starts one of Culvert's processes until the end of t, when it has to
// end in order on SIGTERM.
func (w *world) process(ctx context.Context, t *testing.T, cfg testbed.ProcessConfig) *testbed.Process {
	t.Helper()
	cfg.LogDir = w.dir
	p, err := testbed.StartProcess(ctx, cfg)
	must(t, err)
	t.Cleanup(func() {
		err := p.Stop(context.Background())
		log, read := os.ReadFile(p.Log())
		if err := errors.Join(err, read); err != nil {
			t.Error(err)
		}
		if race := bytes.Index(log, []byte("WARNING: DATA RACE")); race >= 0 {
			t.Errorf("%s met a data race:\n%s", cfg.Name, log[race:])
		}
		if bytes.Contains(log, []byte("panic")) {
			t.Errorf("%s met a panic:\n%s", cfg.Name, log)
		}
		for _, token := range []string{adaToken, graceToken, w.ops.token} {
			if token != "" && bytes.Contains(log, []byte(token)) {
				t.Errorf("the log of %s has a credential", cfg.Name)
			}
		}
	})
	return p
}

// serviceAccount makes a service account of the hub's cluster and returns it as a
// user, with a token by kubectl create token.
func (w *world) serviceAccount(ctx context.Context, t *testing.T, namespace, name string) user {
	t.Helper()
	must(t, w.hub.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata: {name: %s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %s, namespace: %[1]s}
`, namespace, name)))
	token, err := w.hub.CreateToken(ctx, namespace, name)
	must(t, err)
	return w.user(t, "system:serviceaccount:"+namespace+":"+name, token)
}

// user returns the owner of a token, with a kubeconfig for the managed cluster
// through the hub.
func (w *world) user(t *testing.T, name, token string) user {
	t.Helper()
	// A colon would end the file's name in KUBECONFIG.
	dir := filepath.Join(w.dir, "user-"+strings.ReplaceAll(name, ":", "-"))
	must(t, os.Mkdir(dir, 0o700))
	kubeconfig := filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(managedURL, w.ca, token), 0o600))
	return user{name: name, token: token, kubectl: w.managed.KubectlAs(kubeconfig)}
}

// managedObjects are what the tests find in the managed cluster. The operator is
// named as the hub maps them.
const managedObjects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: work}}
- {apiVersion: v1, kind: Namespace, metadata: {name: idle}}
- {apiVersion: v1, kind: Namespace, metadata: {name: bulk}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: operator}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:system:serviceaccount:operators:ops"}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: "edge:system:serviceaccount:operators:ops"}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: developers, namespace: work}
  rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: developers, namespace: work}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: developers}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "cluster:hub:dev"}]
- {apiVersion: v1, kind: ConfigMap, metadata: {name: idle, namespace: idle}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: first, namespace: work}, data: {key: value}}
`
