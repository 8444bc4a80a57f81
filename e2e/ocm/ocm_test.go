package ocm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// ocmObjects are what OCM itself has of a managed cluster, and what its scheduler makes
// of the placement.
const ocmObjects = `apiVersion: v1
kind: Namespace
metadata: {name: open-cluster-management-hub}
---
apiVersion: v1
kind: Namespace
metadata: {name: edge-1}
---
apiVersion: cluster.open-cluster-management.io/v1
kind: ManagedCluster
metadata: {name: edge-1, labels: {culvert.dev/agent: enabled}}
spec: {hubAcceptsClient: true}
---
apiVersion: cluster.open-cluster-management.io/v1beta1
kind: PlacementDecision
metadata:
  name: culvert-decision-1
  namespace: culvert-addon
  labels:
    cluster.open-cluster-management.io/placement: culvert
    cluster.open-cluster-management.io/decision-group-index: "0"
    cluster.open-cluster-management.io/decision-group-name: ""
`

const decision = `{"status":{"decisions":[{"clusterName":"edge-1","reason":""}]}}`

func TestAddon(t *testing.T) {
	w := startWorld(t)
	ctx := within(t, 12*time.Minute)

	t.Run("K11: the objects are accepted by server-side apply with OCM's own definitions, the newest and those of the addon manager, without a warning", func(t *testing.T) {
		for _, c := range []struct {
			cluster *testbed.Cluster
			crds    string
			kinds   []string
		}{
			{w.managed, "crds-newest", definitions()},
			{w.management, "crds-pinned", append(definitions(), work)},
		} {
			must(t, install(ctx, c.cluster, filepath.Join(testbed.Dir(), c.crds), c.kinds...))
			for name, text := range map[string]string{"addon.yaml": w.deploy(t, "addon.yaml"), "config.yaml": w.config(t), "placement.yaml": w.deploy(t, "placement.yaml")} {
				if name != "addon.yaml" {
					must(t, ignoreExisting(c.cluster.Kubectl(ctx, "create", "namespace", "culvert-addon")))
				}
				warnings, err := applyText(ctx, c.cluster, text, "-f", "-")
				must(t, err)
				if warnings != "" {
					t.Errorf("%s with %s: %s", name, c.crds, warnings)
				}
			}
			warnings, err := applyText(ctx, c.cluster, w.deploy(t, "config.yaml"), "-f", "-", "--dry-run=server", "--force-conflicts")
			if err != nil || warnings != "" {
				t.Errorf("config.yaml as it is: %s, %v", warnings, err)
			}
		}
		// The managed cluster has no more to do with OCM's objects.
		_, err := w.managed.Kubectl(ctx, "delete", "crd", "--all")
		must(t, err)
	})

	t.Run("K11: the addon manager may read the signer's Secret and no other", func(t *testing.T) {
		must(t, os.WriteFile(filepath.Join(w.dir, "signer.key"), w.signer.keyPEM, 0o600))
		_, err := w.management.Kubectl(ctx, "create", "secret", "tls", "culvert-signer", "--namespace", "culvert-addon",
			"--cert", filepath.Join(w.dir, "signer.crt"), "--key", filepath.Join(w.dir, "signer.key"))
		must(t, err)
		for secret, want := range map[string]string{"culvert-signer": "yes", "another": "no"} {
			// An authorizer sees a new binding some moments later.
			check(t, testbed.Poll(within(t, time.Minute), "what it may do", func(ctx context.Context) error {
				// A no is an exit status, too.
				out, _ := w.management.Kubectl(ctx, "auth", "can-i", "get", "secret/"+secret, "--namespace", "culvert-addon",
					"--as", "system:serviceaccount:open-cluster-management-hub:addon-manager-controller-sa")
				if strings.TrimSpace(out) != want {
					return fmt.Errorf("%s: %q, want %s", secret, out, want)
				}
				return nil
			}))
		}
	})

	deployment := w.render(ctx, t)
	if t.Failed() {
		return
	}
	var signed *pair
	var agent *pod
	t.Run("K11: OCM signs what the registration asks for, and the agent as rendered serves its cluster to callers", func(t *testing.T) {
		var registered struct {
			Status struct {
				Registrations []struct {
					SignerName string
					Subject    struct {
						User   string
						Groups []string
					}
				}
			}
		}
		out, err := w.management.Kubectl(ctx, "get", "managedclusteraddon", addonName, "--namespace", clusterName, "-o", "json")
		must(t, err)
		must(t, json.Unmarshal([]byte(out), &registered))
		subject := subjectOf(clusterName, addonName)
		if r := registered.Status.Registrations; len(r) != 1 || r[0].SignerName != signerName || r[0].Subject.User != subject.CommonName || fmt.Sprint(r[0].Subject.Groups) != fmt.Sprint(subject.Organization) {
			t.Fatalf("OCM registers %+v, want %+v", r, subject)
		}
		signed, err = w.request(ctx, "1", subject)
		must(t, err)
		w.secret(ctx, t, signed)
		agent = w.newPod(ctx, t, "pod-1", deployment)
		agent.start(ctx, t, w, "agent-1")
		must(t, testbed.Poll(within(t, 2*time.Minute), "a request through the tunnel", func(ctx context.Context) error {
			out, err := w.kubectl.Run(ctx, "get", "namespaces", "-o", "name")
			if err == nil && !strings.Contains(out, "namespace/culvert-agent") {
				err = fmt.Errorf("%q", out)
			}
			return err
		}))
		if list := w.cli(ctx, t, "clusters", "list"); strings.Count(list, "connected") != 1 || !strings.Contains(list, clusterName) {
			t.Errorf("%s", list)
		}
	})

	t.Run("K11,N9: the agent's account may impersonate and nothing else, and its pod is what the namespace allows", func(t *testing.T) {
		out, err := w.managed.Kubectl(ctx, "auth", "can-i", "--list", "--namespace", deployment.Namespace,
			"--as", "system:serviceaccount:"+deployment.Namespace+":culvert-agent", "--as-group", "system:serviceaccounts")
		must(t, err)
		for line := range strings.Lines(out) {
			// Everybody who is authenticated may ask what they may do, and read what the API
			// server says of itself.
			if strings.HasPrefix(line, "Resources") || strings.HasPrefix(strings.TrimSpace(line), "[") || strings.Contains(line, "[impersonate]") ||
				strings.HasPrefix(line, "selfsubject") {
				continue
			}
			t.Errorf("it may also: %s", line)
		}
		if strings.Count(out, "[impersonate]") != 3 {
			t.Errorf("%s", out)
		}
		object := map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "agent", "namespace": deployment.Namespace},
			"spec": deployment.Spec.Template.Spec,
		}
		text, err := json.Marshal(object)
		must(t, err)
		warnings, err := applyText(ctx, w.managed, string(text), "-f", "-", "--dry-run=server")
		if err != nil || warnings != "" {
			t.Errorf("the pod: %s, %v", warnings, err)
		}
	})

	t.Run("K11,N7: the certificate is rotated while a watch runs, which outlives the certificate it began with", func(t *testing.T) {
		agent.stop(t)
		// All that takes time comes first: once the short one is signed, it has to be in use
		// and renewed before it ends, also on a busy machine.
		agent = w.newPod(ctx, t, "pod-2", deployment)
		renewed, err := w.request(ctx, "2", subjectOf(clusterName, addonName))
		must(t, err)
		connected, presented := len(w.hubLog(t, "agent connected")), len(w.hubLog(t, "certificate presented"))
		short, err := w.signer.sign(subjectOf(clusterName, addonName), 30*time.Second)
		must(t, err)
		leaf, err := short.leaf()
		must(t, err)
		must(t, agent.secrets[secretName].put(map[string][]byte{"tls.crt": short.certPEM, "tls.key": short.keyPEM}))
		agent.start(ctx, t, w, "agent-2")
		w.awaitLine(ctx, t, connected, "agent connected", clusterName)
		watch := w.watch(ctx, t)
		// What the kubelet does when OCM has signed anew, and the klusterlet before it.
		must(t, agent.secrets[secretName].put(map[string][]byte{"tls.crt": renewed.certPEM, "tls.key": renewed.keyPEM}))
		t.Logf("hub: %s", w.awaitLine(ctx, t, presented, "certificate presented", "cluster="+clusterName))
		w.secret(ctx, t, renewed)
		must(t, testbed.Poll(ctx, "the end of the first certificate", func(context.Context) error {
			if left := time.Until(leaf.NotAfter.Add(2 * time.Second)); left > 0 {
				return fmt.Errorf("it has %v", left)
			}
			return nil
		}))
		watch.sees(ctx, t, w, "after-the-end")
		if n := len(w.hubLog(t, "agent connected")); n != connected+1 {
			t.Errorf("%d connections, want one", n-connected)
		}
		watch.end(t)
	})

	t.Run("K11,N7: a CA and subjects that are not configured are refused, each with its line at the hub, though OCM signs them", func(t *testing.T) {
		agent.stop(t)
		stranger, err := newSigner("stranger")
		must(t, err)
		foreign, err := stranger.sign(subjectOf(clusterName, addonName), time.Hour)
		must(t, err)
		other, err := w.request(ctx, "3", subjectOf(clusterName, "cluster-proxy"))
		must(t, err)
		mixed := subjectOf(clusterName, addonName)
		mixed.CommonName = subjectOf("edge-2", addonName).CommonName
		ambiguous, err := w.request(ctx, "4", mixed)
		must(t, err)
		own := subjectOf(clusterName, addonName)
		own.OrganizationalUnit = []string{"edge-2"}
		unit, err := w.request(ctx, "5", own)
		must(t, err)
		for i, c := range []struct {
			pair *pair
			says []string
		}{
			{foreign, []string{"not trusted here", "stranger", "nor by one of agentAuthorities[0]"}},
			{other, []string{"agentAuthorities[0]", "cluster-proxy", "want culvert"}},
			{ambiguous, []string{"agentAuthorities[0]", "organizations are"}},
			{unit, []string{"agentAuthorities[0]", "attribute 2.5.4.11"}},
		} {
			w.secret(ctx, t, c.pair)
			p := w.newPod(ctx, t, fmt.Sprintf("pod-refused-%d", i), deployment)
			name := fmt.Sprintf("agent-refused-%d", i)
			p.start(ctx, t, w, name)
			t.Logf("hub: %s", w.awaitLine(ctx, t, 0, append(c.says, "tls handshake refused")...))
			must(t, testbed.Poll(ctx, "the agent to say so", func(context.Context) error {
				text, err := os.ReadFile(filepath.Join(w.dir, name+".log"))
				if err == nil && !strings.Contains(string(text), "refused this agent's certificate") {
					err = fmt.Errorf("%s", text)
				}
				return err
			}))
			p.stop(t)
		}
		if list := w.cli(ctx, t, "clusters", "list"); strings.Contains(list, "edge-2") || strings.Contains(list, "connected") {
			t.Errorf("%s", list)
		}
	})

	t.Run("K11,N7: a revoked cluster stays out with what OCM signs afterwards, until it is restored", func(t *testing.T) {
		w.cli(ctx, t, "clusters", "revoke", clusterName, "--reason", "laptop stolen")
		after := time.Now().Truncate(time.Second).Add(time.Second)
		must(t, testbed.Poll(ctx, "the next second, of which certificates are", func(context.Context) error {
			if time.Now().Before(after) {
				return errors.New("not yet")
			}
			return nil
		}))
		fresh, err := w.request(ctx, "6", subjectOf(clusterName, addonName))
		must(t, err)
		w.secret(ctx, t, fresh)
		p := w.newPod(ctx, t, "pod-revoked", deployment)
		connected := len(w.hubLog(t, "agent connected"))
		p.start(ctx, t, w, "agent-revoked")
		t.Logf("hub: %s", w.awaitLine(ctx, t, 0, "tls handshake refused", "laptop stolen", "culvert clusters restore "+clusterName))
		w.cli(ctx, t, "clusters", "restore", clusterName)
		w.awaitLine(ctx, t, connected, "agent connected", clusterName)
		p.stop(t)
	})
}

// secretName is that of OCM's rule, <addon>-<signer>-client-cert, with the signer's
// slash as a dash.
const secretName = "culvert-culvert.dev-agent-client-cert"

// secret puts a certificate where the klusterlet does.
func (w *world) secret(ctx context.Context, t *testing.T, p *pair) {
	t.Helper()
	object := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": secretName, "namespace": "culvert-agent"},
		"data": map[string]any{
			"tls.crt": base64.StdEncoding.EncodeToString(p.certPEM), "tls.key": base64.StdEncoding.EncodeToString(p.keyPEM),
		},
	}
	text, err := json.Marshal(object)
	must(t, err)
	_, err = applyText(ctx, w.managed, string(text), "-f", "-")
	must(t, err)
}

// workAgent applies manifests in whatever order they come, and again what needs
// another one first, as OCM's does.
func (w *world) workAgent(ctx context.Context, t *testing.T, manifests []json.RawMessage) {
	t.Helper()
	var err error
	for rounds := 0; len(manifests) > 0 && rounds < 3; rounds++ {
		var left []json.RawMessage
		for _, manifest := range manifests {
			warnings, failed := applyText(ctx, w.managed, string(manifest), "-f", "-")
			if failed != nil {
				left, err = append(left, manifest), failed
			}
			if warnings != "" {
				t.Errorf("%s: %s", manifest, warnings)
			}
		}
		manifests = left
	}
	if len(manifests) > 0 {
		t.Fatalf("%d manifests cannot be applied: %v", len(manifests), err)
	}
}

func ignoreExisting(_ string, err error) error {
	if err != nil && strings.Contains(err.Error(), "AlreadyExists") {
		return nil
	}
	return err
}

// render lets OCM's addon manager render the agent for the managed cluster, applies that
// there, as OCM's work agent does, and returns the agent's Deployment.
func (w *world) render(ctx context.Context, t *testing.T) *appsv1.Deployment {
	t.Helper()
	var deployment appsv1.Deployment
	t.Run("K11: OCM's addon manager renders the agent: variables, nodes, proxy, image and namespace", func(t *testing.T) {
		must(t, w.management.Apply(ctx, ocmObjects+"---\n"+klusterlet))
		_, err := w.management.Kubectl(ctx, "patch", "placementdecision", "culvert-decision-1", "--namespace", "culvert-addon",
			"--subresource=status", "--type=merge", "--patch", decision)
		must(t, err)
		path, err := testbed.OCMAddonManager(ctx, t.Output())
		must(t, err)
		manager, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
			Name: "ocm-addon-manager", Path: path, LogDir: w.dir, Args: []string{"--kubeconfig", w.management.AdminKubeconfig},
			Env: []string{"POD_NAMESPACE=open-cluster-management-hub"},
		})
		must(t, err)
		w.atEnd(t, manager)
		var carried struct {
			Spec struct {
				Workload struct{ Manifests []json.RawMessage }
			}
		}
		must(t, testbed.Poll(ctx, "OCM to render", func(ctx context.Context) error {
			out, err := w.management.Kubectl(ctx, "get", "manifestwork", "addon-culvert-deploy-0", "--namespace", clusterName, "-o", "json")
			if err == nil {
				err = json.Unmarshal([]byte(out), &carried)
			}
			return err
		}))
		for _, manifest := range carried.Spec.Workload.Manifests {
			if strings.Contains(string(manifest), "{{") {
				t.Errorf("a variable is left: %s", manifest)
			}
		}
		w.workAgent(ctx, t, carried.Spec.Workload.Manifests)
		w.object(ctx, t, &deployment, "deployment", "culvert-agent", "culvert-agent")
		spec := deployment.Spec.Template.Spec
		container := spec.Containers[0]
		if container.Image != "registry.example.com/mirror/culvert-agent:latest" {
			t.Errorf("image %s", container.Image)
		}
		if spec.NodeSelector["kubernetes.io/os"] != "linux" || len(spec.Tolerations) != 1 || spec.Tolerations[0].Key != "edge" {
			t.Errorf("nodes %v, tolerations %v", spec.NodeSelector, spec.Tolerations)
		}
		env := map[string]string{}
		for _, e := range container.Env {
			env[e.Name] = e.Value
		}
		if env["HTTPS_PROXY"] != "http://proxy.example.com:3128" || !strings.Contains(env["NO_PROXY"], testbed.HubAddress.String()) || env["CLUSTER_NAME"] != clusterName {
			t.Errorf("environment %v", env)
		}
		mounted := false
		for _, v := range spec.Volumes {
			mounted = mounted || v.Secret != nil && v.Secret.SecretName == secretName
		}
		if !mounted || container.Args[0] != "--hub="+w.port.Addr() {
			t.Errorf("volumes %+v, arguments %v", spec.Volumes, container.Args)
		}
	})
	return &deployment
}
