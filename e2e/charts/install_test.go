package charts

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// secondReplica is what a second pod needs that shares the first one's address here,
// which pods do not.
const secondReplica = "--metrics-listen=:9191"

func agent(name string, c *testbed.Cluster, args ...string) podConfig {
	return podConfig{name: name, cluster: c, namespace: agentNamespace, workload: "deployment/culvert-agent", binary: "culvert-agent", args: args}
}

// start runs a pod until the test ends.
func start(ctx context.Context, t *testing.T, cfg podConfig) *pod {
	t.Helper()
	p, err := startPod(ctx, cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// generation counts the changes of a workload's specification: as long as it stays,
// Kubernetes replaces no pod.
func generation(ctx context.Context, t *testing.T, c *testbed.Cluster, namespace, workload string) string {
	t.Helper()
	out, err := c.Kubectl(ctx, "-n", namespace, "get", workload, "-o", "jsonpath={.metadata.generation}")
	must(t, err)
	return out
}

// links is how many tunnels of a cluster the hub has.
func links(ctx context.Context, cluster string) (string, error) {
	out, err := the.hub.metrics(ctx)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if count, ok := strings.CutPrefix(line, fmt.Sprintf("culvert_links{cluster=%q} ", cluster)); ok {
			return strings.TrimSpace(count), nil
		}
	}
	return "", nil
}

// twoLinks waits until the hub has two tunnels of a cluster: an agent knows that it is
// connected a moment before the hub counts it.
func twoLinks(ctx context.Context, cluster string) error {
	return testbed.Poll(ctx, "two tunnels of "+cluster, func(ctx context.Context) error {
		count, err := links(ctx, cluster)
		if err == nil && count != "2" {
			err = fmt.Errorf("%q tunnels", count)
		}
		return err
	})
}

func TestInstall(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	line, err := the.joinLine(ctx, "edge-1")
	must(t, err)
	values := func(policy string) string {
		text, err := json.Marshal(map[string]any{"join": map[string]string{"token": line}, "cluster": map[string]string{"uid": "edge-1"}})
		must(t, err)
		return string(text[:len(text)-1]) + `,"policy":{"document":{"apiVersion":"policy.culvert.dev/v1","kind":"Policy","default":"` + policy + `"}}}`
	}
	render := func(policy string) string {
		objects, err := manifests(ctx, "agent", values(policy), "--namespace", agentNamespace)
		must(t, err)
		return objects
	}
	must(t, restricted(ctx, the.managed, agentNamespace))
	must(t, apply(ctx, the.managed, render("kubernetes")))

	t.Run("P3,P7,P8,P9,S1,S10,K12: the charts' pods, with their accounts and files, carry a request of a hub's caller to a private cluster", func(t *testing.T) {
		first := start(ctx, t, agent("agent-1", the.managed))
		must(t, the.await(ctx, "edge-1", 200))
		t.Logf("first replica: %v", first.spec.Containers[0].Args)
		status, body, err := the.get(ctx, "/edge-1/api/v1/nodes")
		if err != nil || status != 403 || !strings.Contains(body, "cluster:hub:system:serviceaccount:culvert-hub:caller") {
			t.Errorf("the cluster's RBAC does not decide: %d %s %v", status, body, err)
		}
	})
	must(t, the.managed.Apply(ctx, emptyState)) // as after a new installation
	line, err = the.joinLine(ctx, "edge-1")
	must(t, err)
	must(t, apply(ctx, the.managed, render("kubernetes")))

	var replicas [2]*pod
	t.Run("S11,K6: two replicas that start at once join with one token, and share a certificate", func(t *testing.T) {
		var errs [2]error
		var starting sync.WaitGroup
		for i, cfg := range []podConfig{agent("replica-1", the.managed), agent("replica-2", the.managed, secondReplica)} {
			starting.Go(func() { replicas[i], errs[i] = startPod(ctx, cfg) })
		}
		starting.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.FailNow()
		}
		must(t, twoLinks(ctx, "edge-1"))
		secret := stateSecret(ctx, t)
		if len(secret.Data["tls.key"]) == 0 || len(secret.Data["join.key"]) != 0 || !strings.Contains(string(secret.Data["agent.json"]), `"cluster":"edge-1"`) {
			t.Errorf("the Secret has %d entries: %s", len(secret.Data), secret.Data["agent.json"])
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, p := range replicas {
			if p == nil {
				continue
			}
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("K12: the same manifest again changes nothing, and a pod that is replaced takes the certificate of the one before", func(t *testing.T) {
		before := stateSecret(ctx, t)
		must(t, apply(ctx, the.managed, render("kubernetes")))
		must(t, replicas[1].stop())
		replicas[1], err = startPod(ctx, agent("replica-3", the.managed, secondReplica))
		must(t, err)
		log, err := os.ReadFile(replicas[1].process.Log())
		must(t, err)
		if !strings.Contains(string(log), "joined already") {
			t.Errorf("%s", log)
		}
		after := stateSecret(ctx, t)
		if string(before.Data["tls.crt"]) != string(after.Data["tls.crt"]) || before.ResourceVersion != after.ResourceVersion {
			t.Error("the Secret was changed")
		}
	})

	t.Run("D22: the owner's policy changes without a restart", func(t *testing.T) {
		before := generation(ctx, t, the.managed, agentNamespace, "deployment/culvert-agent")
		for _, step := range []struct {
			policy string
			status int
		}{{"deny", 403}, {"kubernetes", 200}} {
			must(t, apply(ctx, the.managed, render(step.policy)))
			for _, p := range replicas {
				must(t, p.mount(ctx))
			}
			must(t, the.await(ctx, "edge-1", step.status))
		}
		if now := generation(ctx, t, the.managed, agentNamespace, "deployment/culvert-agent"); now != before {
			t.Errorf("generation %s has become %s: the pods would be replaced", before, now)
		}
	})
}

// emptyState has the agents' Secret as it is before anybody has joined.
const emptyState = `apiVersion: v1
kind: Secret
metadata: {name: culvert-agent-state, namespace: culvert-agent}
data: {tls.crt: "", tls.key: "", ca.crt: "", agent.json: ""}
`

func stateSecret(ctx context.Context, t *testing.T) corev1.Secret {
	t.Helper()
	return secretOf(ctx, t, the.managed, agentNamespace)
}

// secretOf is the Secret that the agents of a namespace share.
func secretOf(ctx context.Context, t *testing.T, c *testbed.Cluster, namespace string) corev1.Secret {
	t.Helper()
	out, err := c.Kubectl(ctx, "-n", namespace, "get", "secret", "culvert-agent-state", "-o", "json")
	must(t, err)
	var secret corev1.Secret
	must(t, json.Unmarshal([]byte(out), &secret))
	return secret
}

func TestOtherWays(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	ca, err := json.Marshal(the.authority.pem)
	must(t, err)
	hub := fmt.Sprintf(`hub: {address: %q, ca: %s}`+"\n", the.address(), ca)
	t.Run("S9,K12: an agent beside the hub joins with its service account, in a namespace made from the cluster's uid", func(t *testing.T) {
		objects, err := manifests(ctx, "agent", hub+"join: {serviceAccount: {enabled: true}}\ncluster: {uid: local}\nmetrics: {port: 9191}\n")
		must(t, err)
		must(t, restricted(ctx, the.management, "cluster-local"))
		must(t, apply(ctx, the.management, objects))
		start(ctx, t, podConfig{name: "local", cluster: the.management, namespace: "cluster-local", workload: "deployment/culvert-agent", binary: "culvert-agent"})
		must(t, the.await(ctx, "local", 200))
	})
	t.Run("K12: an agent with a certificate that somebody else makes", func(t *testing.T) {
		dir := t.TempDir()
		state := filepath.Join(the.hub.root, "var", "lib", "culvert", "hub")
		if out, err := the.cli(ctx, "pki", "agent", "--state", state, "--cluster", "supplied", "--out", dir).Output(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, restricted(ctx, the.managed, "supplied"))
		if _, err := the.managed.Admin().Run(ctx, "-n", "supplied", "create", "secret", "generic", "agent-cert",
			"--from-file="+filepath.Join(dir, "tls.crt"), "--from-file="+filepath.Join(dir, "tls.key")); err != nil {
			t.Fatal(err)
		}
		objects, err := manifests(ctx, "agent", hub+"certificate: {secretName: agent-cert}\nmetrics: {port: 9292}\n", "--namespace", "supplied")
		must(t, err)
		must(t, apply(ctx, the.managed, objects))
		start(ctx, t, podConfig{name: "supplied", cluster: the.managed, namespace: "supplied", workload: "deployment/culvert-agent", binary: "culvert-agent"})
		must(t, the.await(ctx, "supplied", 200))
	})
}

func TestHubFollows(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	before := generation(ctx, t, the.management, hubNamespace, "statefulset/culvert-hub")
	old := the.serial(ctx, t)
	certificate, key, err := the.authority.issue(testbed.HubAddress)
	must(t, err)
	objects, err := manifests(ctx, "hub", the.hubValues(certificate, key, "policy: {document: {apiVersion: policy.culvert.dev/v1, kind: Policy, default: deny}}\n"), "--namespace", hubNamespace)
	must(t, err)
	must(t, apply(ctx, the.management, objects))
	must(t, the.hub.mount(ctx))
	t.Run("O10,D22: a new serving certificate in the Secret is shown without a restart", func(t *testing.T) {
		must(t, testbed.Poll(ctx, "another certificate", func(context.Context) error {
			if now := the.serial(ctx, t); now == old {
				return fmt.Errorf("it is still number %s", now)
			}
			return nil
		}))
	})
	t.Run("D22: a new policy of the hub counts without a restart", func(t *testing.T) {
		must(t, the.await(ctx, "nowhere", 403))
		objects, err := manifests(ctx, "hub", the.hubValues(certificate, key, openPolicy), "--namespace", hubNamespace)
		must(t, err)
		must(t, apply(ctx, the.management, objects))
		must(t, the.hub.mount(ctx))
		must(t, the.await(ctx, "nowhere", 404))
	})
	if now := generation(ctx, t, the.management, hubNamespace, "statefulset/culvert-hub"); now != before {
		t.Errorf("generation %s has become %s: the pod would be replaced", before, now)
	}
}

// serial is the number of the certificate that the hub shows.
func (w *world) serial(ctx context.Context, t *testing.T) string {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", w.address())
	must(t, err)
	defer conn.Close()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("%T", conn)
	}
	return secured.ConnectionState().PeerCertificates[0].SerialNumber.String()
}
