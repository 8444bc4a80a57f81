package charts

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// replaceHub changes the hub's configuration, and gives its volume to a new pod.
func (w *world) replaceHub(ctx context.Context, further string) error {
	certificate, key, err := w.authority.issue(testbed.HubAddress)
	if err != nil {
		return err
	}
	objects, err := manifests(ctx, "hub", w.hubValues(certificate, key, openPolicy, further), "--namespace", hubNamespace)
	if err != nil {
		return err
	}
	if err := apply(ctx, w.management, objects); err != nil {
		return err
	}
	old := w.hub
	if err := old.stop(); err != nil {
		return err
	}
	w.hub, err = startPod(ctx, podConfig{
		name: "hub-again", cluster: w.management, namespace: hubNamespace, workload: "statefulset/culvert-hub", binary: "culvert-hub", volumes: old,
	})
	return err
}

// TestRenewal has for its time a hub whose certificates for agents last for 24
// seconds: they are renewed after two thirds of it, and a machine may be held up for some
// seconds of the third.
func TestRenewal(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	before := generation(ctx, t, the.management, hubNamespace, "statefulset/culvert-hub")
	must(t, the.replaceHub(ctx, "hub: {config: {certificates: {agentLifetime: 24s}}}\n"))
	t.Cleanup(func() {
		if err := the.replaceHub(context.WithoutCancel(ctx), ""); err != nil {
			t.Error(err)
		}
	})
	if now := generation(ctx, t, the.management, hubNamespace, "statefulset/culvert-hub"); now == before {
		t.Error("what the hub reads at its start has changed, and its pod would not be replaced")
	}
	const namespace = "renewing"
	install := func(line string) {
		objects, err := manifests(ctx, "agent", "cluster: {uid: renewing}\nmetrics: {port: 9393}\n", "--namespace", namespace, "--set", "join.token="+line)
		must(t, err)
		must(t, apply(ctx, the.managed, objects))
	}
	secret := func() (*corev1.Secret, *x509.Certificate) {
		t.Helper()
		s := secretOf(ctx, t, the.managed, namespace)
		block, _ := pem.Decode(s.Data["tls.crt"])
		if block == nil {
			return &s, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		return &s, cert
	}
	must(t, restricted(ctx, the.managed, namespace))
	line, err := the.joinLine(ctx, "renewing")
	must(t, err)
	install(strings.TrimSpace(line))
	// As an agent leaves it that ends between writing its key down and joining.
	_, crashed, err := the.authority.issue(testbed.HubAddress)
	must(t, err)
	must(t, the.managed.Apply(ctx, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: culvert-agent-state, namespace: %s}\nstringData: {join.key: %q}\n", namespace, crashed)))
	cfg := podConfig{cluster: the.managed, namespace: namespace, workload: "deployment/culvert-agent", binary: "culvert-agent"}
	cfg.name = "renewing-1"
	start(ctx, t, cfg)
	t.Run("K6: an agent joins with the key that one which crashed has left behind", func(t *testing.T) {
		s, cert := secret()
		if cert == nil || string(s.Data["tls.key"]) != crashed || len(s.Data["join.key"]) != 0 {
			t.Errorf("the Secret has another key, or still the one to join with: %v", cert)
		}
	})
	cfg.name, cfg.args = "renewing-2", []string{"--metrics-listen=:9494"}
	start(ctx, t, cfg)
	t.Run("O9,K6: replicas renew the certificate that they share, through several of its lives, and requests go on", func(t *testing.T) {
		_, first := secret()
		seen := map[string]bool{}
		must(t, testbed.Poll(ctx, "three further certificates", func(context.Context) error {
			if err := the.await(within(t, 20*time.Second), "renewing", 200); err != nil {
				t.Errorf("no request gets through: %v", err)
			}
			_, now := secret()
			if now.SerialNumber.Cmp(first.SerialNumber) != 0 {
				seen[now.SerialNumber.String()] = true
			}
			if len(seen) < 3 || time.Now().Before(first.NotAfter.Add(2*time.Second)) {
				return fmt.Errorf("%d", len(seen))
			}
			return nil
		}))
		must(t, twoLinks(ctx, "renewing")) // after the first certificate has ended
	})
}
