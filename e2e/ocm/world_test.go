package ocm

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	clusterName = "edge-1"
	addonName   = "culvert"
	signerName  = "culvert.dev/agent"
	userToken   = "ada-token"
)

// managedObjects let the hub's caller list namespaces in the managed cluster.
const managedObjects = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: namespaces}
rules:
- {apiGroups: [""], resources: [namespaces, configmaps], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ada}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: namespaces}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}
`

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

// world is a management cluster with OCM's addon manager and Culvert's hub, and one
// managed cluster.
type world struct {
	dir, root           string
	culvert             testbed.Culvert
	management, managed *testbed.Cluster
	signer              *signer
	port                *testbed.Port
	hub                 *testbed.Process
	kubectl             testbed.Kubectl // of ada, by the hub
	hubURL              string
	hubCA               []byte
	ends                []*testbed.Process
}

func startWorld(t *testing.T) *world {
	t.Helper()
	ctx := within(t, 5*time.Minute)
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	bin := filepath.Join(testbed.Dir(), "bin")
	w := &world{culvert: testbed.Culvert{Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert")}}
	w.root, err = testbed.Root()
	must(t, err)
	w.dir, err = os.MkdirTemp("", "ocm-") //nolint:usetesting // t.TempDir would put the test's name into the path of a Unix socket
	must(t, err)
	bed, err := testbed.New(ctx, testbed.Config{Dir: w.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	clusters, err := bed.StartClusters(ctx, testbed.ClusterConfig{Name: "management"}, testbed.ClusterConfig{Name: clusterName})
	must(t, err)
	w.management, w.managed = clusters[0], clusters[1]
	must(t, w.managed.Apply(ctx, managedObjects))
	w.signer, err = newSigner("culvert-signer")
	must(t, err)
	w.startHub(ctx, t)
	t.Cleanup(func() {
		for _, p := range w.ends {
			check(t, p.Kill9())
		}
	})
	return w
}

// startHub starts a hub which knows the CA that OCM signs with.
func (w *world) startHub(ctx context.Context, t *testing.T) {
	t.Helper()
	state, tokens, ca, config := filepath.Join(w.dir, "state"), filepath.Join(w.dir, "tokens.csv"), filepath.Join(w.dir, "signer.crt"), filepath.Join(w.dir, "hub.yaml")
	if out, err := exec.CommandContext(ctx, w.culvert.CLI, "pki", "init", "--state", state).CombinedOutput(); err != nil {
		t.Fatalf("culvert pki init: %v: %s", err, out)
	}
	must(t, os.WriteFile(tokens, []byte(userToken+",ada,1,\"dev\"\n"), 0o600))
	must(t, os.WriteFile(ca, w.signer.certPEM, 0o600))
	must(t, os.WriteFile(config, fmt.Appendf(nil, "agentAuthorities:\n- ca: %s\n  ocm: {addon: %s}\n", ca, addonName), 0o600))
	var err error
	w.port, err = testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(w.port.Close)
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "hub", Path: w.culvert.Hub, LogDir: w.dir,
		Args: []string{
			"--config", config, "--listen", w.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--state", state,
			"--token-file", tokens, "--drain-timeout", "2s",
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, w.hub.Kill9()) })
	w.hubCA, err = os.ReadFile(filepath.Join(state, "pki", "serving-ca.crt"))
	must(t, err)
	w.hubURL = "https://" + w.port.Addr()
	kubeconfig := filepath.Join(w.dir, "ada.kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(w.hubURL+"/"+clusterName, w.hubCA, userToken), 0o600))
	w.kubectl = w.managed.KubectlAs(kubeconfig)
}

// cli runs the culvert command against the hub's state folder.
func (w *world) cli(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, w.culvert.CLI, append(args, "--state", filepath.Join(w.dir, "state"))...).CombinedOutput()
	if err != nil {
		t.Fatalf("culvert %v: %v: %s", args, err, out)
	}
	return string(out)
}

// deploy is a file of deploy/ocm.
func (w *world) deploy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.root, "deploy", "ocm", name))
	must(t, err)
	return string(text)
}

// config is config.yaml with every setting made.
func (w *world) config(t *testing.T) string {
	t.Helper()
	text := w.deploy(t, "config.yaml")
	ca := base64.StdEncoding.EncodeToString(w.hubCA)
	half := len(ca) / 2
	for _, change := range [][2]string{
		{"value: hub.example.com:443", "value: " + w.port.Addr()},
		{"- name: HUB_CA\n    value: \"\"", "- name: HUB_CA\n    value: " + ca[:half]},
		{"- name: HUB_CA_MORE\n    value: \"\"", "- name: HUB_CA_MORE\n    value: " + ca[half:]},
		{"  # proxyConfig:\n  #   httpsProxy: ", "  proxyConfig:\n    httpsProxy: "},
		{"  #   noProxy: ", "    noProxy: 127.0.0.1," + testbed.HubAddress.String() + ","},
		{"mirror: ghcr.io/culvertdev", "mirror: registry.example.com/mirror"},
		{"tolerations: []", "tolerations: [{key: edge, operator: Exists}]"},
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("config.yaml has %q %d times", change[0], strings.Count(text, change[0]))
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return text
}

// hubLog returns the lines of the hub's log that have all the parts.
func (w *world) hubLog(t *testing.T, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(w.hub.Log())
	must(t, err)
	var found []string
next:
	for line := range strings.Lines(string(text)) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// awaitLine waits for more than n lines of the hub's log, and returns the last.
func (w *world) awaitLine(ctx context.Context, t *testing.T, n int, parts ...string) string {
	t.Helper()
	var lines []string
	must(t, testbed.Poll(ctx, fmt.Sprintf("a line of the hub with %q", parts), func(context.Context) error {
		if lines = w.hubLog(t, parts...); len(lines) <= n {
			return fmt.Errorf("%d", len(lines))
		}
		return nil
	}))
	return lines[len(lines)-1]
}
