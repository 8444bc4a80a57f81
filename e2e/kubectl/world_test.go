package kubectl

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// namespace is where the tests' objects are, in the managed cluster.
const namespace = "work"

// world is everything that runs. Its fields do not change once it is started.
type world struct {
	dir     string
	bed     *testbed.Bed
	managed *testbed.Cluster
	node    *testbed.Node
	hubPort *testbed.Port
	hub     *testbed.Process
	ca      []byte // verifies the hub
	token   string // of a user of the hub, who may do everything in the cluster
	hosts   string // leads the names of clusters to the hub, in place of DNS

	// direct is the API server without Culvert, as its administrator.
	direct core.ConfigMapInterface
	// podDir is the working folder of pod worker.
	podDir string
	// big is a file of bigSize bytes, bigSum its hash.
	big, bigSum string
	echo        *echoServer
}

// startWorld starts all parts; the end of t stops them, and fails t if one of
// Culvert's processes did not end in order or met a data race.
func startWorld(t *testing.T) *world {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	w := &world{dir: filepath.Join(testbed.Dir(), "w"), token: rand.Text()}
	w.podDir = filepath.Join(w.dir, "pod")
	must(t, errors.Join(os.Mkdir(w.dir, 0o700), os.Mkdir(w.podDir, 0o700)))
	w.startCluster(ctx, t)
	w.startHub(ctx, t)
	w.startAgent(ctx, t, clusterName)
	w.echo = startEcho(t)
	w.makeBig(t)
	for _, pod := range []string{"worker", "talker", "clock", "quiet"} {
		must(t, w.node.AwaitPod(ctx, namespace, pod))
	}
	return w
}

// clusterName is the managed cluster's at the hub.
const clusterName = "managed"

func (w *world) startCluster(ctx context.Context, t *testing.T) {
	t.Helper()
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	w.bed, err = testbed.New(ctx, testbed.Config{Dir: w.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, w.bed.Close()) })
	w.managed, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: clusterName, Names: []string{passThroughHost}})
	must(t, err)
	w.node, err = w.managed.StartNode(ctx, "node")
	must(t, err)
	t.Cleanup(func() { check(t, w.node.Close()) })
	must(t, w.managed.Apply(ctx, strings.ReplaceAll(objects, "POD-DIR", w.podDir)))
	admin := w.managed.AdminContext()
	w.direct = configMaps(t, restConfig(admin.Server, admin.Token, admin.CA))
}

// objects are what the tests find in the cluster. The user is named as the hub maps
// them. Pod talker answers to who is attached; clock writes ten lines a second;
// quiet writes one line in all.
const objects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: work}}
- {apiVersion: v1, kind: Namespace, metadata: {name: moving}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: ada}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}]
- {apiVersion: v1, kind: ConfigMap, metadata: {name: first, namespace: work}, data: {key: value}}
- apiVersion: v1
  kind: Pod
  metadata: {name: worker, namespace: work}
  spec: {nodeName: node, containers: [{name: main, image: none, workingDir: POD-DIR}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: talker, namespace: work}
  spec: {nodeName: node, containers: [{name: main, image: none, stdin: true, command: [sh, -c, 'while read -r line; do echo "heard $line"; done']}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: clock, namespace: work}
  spec: {nodeName: node, containers: [{name: main, image: none, command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo "tick $i"; sleep 0.1; done']}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: quiet, namespace: work}
  spec: {nodeName: node, containers: [{name: main, image: none, stdin: true, command: [sh, -c, 'echo begin; cat']}]}
`

// configMaps returns a client of a namespace's ConfigMaps.
func configMaps(t *testing.T, config *rest.Config) core.ConfigMapInterface {
	t.Helper()
	return clientOf(t, config).ConfigMaps(namespace)
}

// clientOf returns a client of an API server that leaves no connection behind.
func clientOf(t *testing.T, config *rest.Config) *core.CoreV1Client {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	must(t, err)
	t.Cleanup(client.CloseIdleConnections)
	api, err := core.NewForConfigAndClient(config, client)
	must(t, err)
	return api
}

// through is the configuration of a client by way of the hub.
func (w *world) through(cluster string) *rest.Config {
	return restConfig(w.url(cluster), w.token, w.ca)
}

// restConfig is that of a client without limits of its own.
func restConfig(server, token string, ca []byte) *rest.Config {
	return &rest.Config{Host: server, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: ca}, QPS: -1}
}

// url is where the hub has a cluster.
func (w *world) url(cluster string) string { return "https://" + w.hubPort.Addr() + "/" + cluster }

// change gives a ConfigMap a value, at the API server itself.
func (w *world) change(ctx context.Context, name, value string) error {
	_, err := w.direct.Patch(ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"data":{"key":%q}}`, value), metav1.PatchOptions{})
	return err
}

// make makes a ConfigMap, at the API server itself.
func (w *world) make(ctx context.Context, name string) error {
	_, err := w.direct.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "value"}}, metav1.CreateOptions{})
	return err
}

func (w *world) startHub(ctx context.Context, t *testing.T) {
	t.Helper()
	w.cli(ctx, t, "pki", "init", "--state", w.state())
	var err error
	w.ca, err = os.ReadFile(filepath.Join(w.state(), "pki", "serving-ca.crt"))
	must(t, err)
	tokens := filepath.Join(w.dir, "tokens.csv")
	must(t, os.WriteFile(tokens, []byte(w.token+",ada,ada-uid,dev\n"), 0o600))
	policy, err := testbed.WriteOpenPolicy(w.dir)
	must(t, err)
	w.hubPort, err = testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(w.hubPort.Close)
	w.hosts = filepath.Join(w.dir, "hosts")
	must(t, os.WriteFile(w.hosts, fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s %s\n", testbed.HubAddress, terminatedHost, passThroughHost), 0o600))
	config := filepath.Join(w.dir, "hub.yaml")
	must(t, os.WriteFile(config, []byte(hostsConfig), 0o600))
	w.hub = w.process(ctx, t, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"),
		Args: []string{
			"--listen", w.hubPort.Addr(), "--tls-name", testbed.HubAddress.String(), "--state", w.state(),
			"--token-file", tokens, "--policy", policy, "--drain-timeout", "2s", "--config", config,
		},
	})
}

// hostsConfig gives every cluster a name whose TLS ends at the hub, and one cluster
// another whose TLS does not.
const hostsConfig = `hosts:
  domain: ` + domain + `
  names: [{name: ` + passThroughHost + `, cluster: ` + clusterName + `, mode: passthrough}]
`

func (w *world) state() string { return filepath.Join(w.dir, "hub") }

// startAgent starts an agent of the cluster, under a name at the hub, and waits
// until it serves.
func (w *world) startAgent(ctx context.Context, t *testing.T, name string) *testbed.Process {
	t.Helper()
	kubeconfig, err := w.managed.AgentKubeconfig(ctx)
	must(t, err)
	out := filepath.Join(w.dir, "agent-"+name)
	w.cli(ctx, t, "pki", "agent", "--state", w.state(), "--cluster", name, "--out", out)
	agent := w.process(ctx, t, testbed.ProcessConfig{
		Name: "culvert-agent-" + name, Path: bin("culvert-agent"),
		Args: []string{
			"--hub", w.hubPort.Addr(), "--hub-ca", filepath.Join(out, "ca.crt"),
			"--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"), "--kubeconfig", kubeconfig,
			"--drain-timeout", "2s", "--pass-through",
		},
	})
	must(t, w.awaitServing(ctx, t, name))
	return agent
}

// awaitServing waits until the hub has a cluster's agent.
func (w *world) awaitServing(ctx context.Context, t *testing.T, cluster string) error {
	t.Helper()
	client, err := rest.HTTPClientFor(w.through(cluster))
	must(t, err)
	defer client.CloseIdleConnections()
	return testbed.Poll(ctx, "the tunnel of "+cluster, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(cluster)+"/version", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// cli runs the culvert command.
func (w *world) cli(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, bin("culvert"), args...).CombinedOutput(); err != nil {
		t.Fatalf("culvert %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// process starts one of Culvert's processes until the end of t, when it has to
// end in order on SIGTERM.
func (w *world) process(ctx context.Context, t *testing.T, cfg testbed.ProcessConfig) *testbed.Process {
	t.Helper()
	cfg.LogDir = w.dir
	cfg.Env = append(cfg.Env, "GORACE=atexit_sleep_ms=0") // the race detector's runtime else waits a second
	p, err := testbed.StartProcess(ctx, cfg)
	must(t, err)
	t.Cleanup(func() {
		check(t, p.Stop(context.Background()))
		log, err := os.ReadFile(p.Log())
		check(t, err)
		for _, trouble := range []string{"WARNING: DATA RACE", "panic", w.token} {
			if at := bytes.Index(log, []byte(trouble)); at >= 0 {
				t.Errorf("the log of %s:\n%s", cfg.Name, log[at:min(at+4<<10, len(log))])
			}
		}
	})
	return p
}
