package identity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// account applies a manifest of an agent's account to the hub's cluster, under
// another name, and returns kubectl with it.
func account(ctx context.Context, t *testing.T, file, name string) testbed.Kubectl {
	t.Helper()
	root, err := testbed.Root()
	must(t, err)
	manifest, err := os.ReadFile(filepath.Join(root, "docs", "examples", file))
	must(t, err)
	must(t, the.hubCluster.Apply(ctx, strings.ReplaceAll(string(manifest), "culvert-agent", name)))
	token, err := the.hubCluster.CreateToken(ctx, name, name)
	must(t, err)
	the.plant("a token of "+name, token)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(the.hubCluster.URL, the.hubCluster.AdminContext().CA, token), 0o600))
	return the.hubCluster.KubectlAs(kubeconfig)
}

// allowed wants a command to be let through, or not: a role counts once the API server has
// seen it, a moment after it was made.
func allowed(ctx context.Context, t *testing.T, kubectl testbed.Kubectl, good bool, args ...string) {
	t.Helper()
	if !good {
		if out, err := kubectl.Run(ctx, args...); err == nil {
			t.Errorf("%q: %q", args, out)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := testbed.Poll(ctx, fmt.Sprintf("%q to be allowed", args), func(ctx context.Context) error {
		_, err := kubectl.Run(ctx, args...)
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestAgentAccounts(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	kubectl := account(ctx, t, "agent-rbac-limited.yaml", "limited")
	t.Run("N9: an account that is limited by resourceNames acts for the users and groups that are named, and for nobody else", func(t *testing.T) {
		for args, good := range map[string]bool{
			"--as=cluster:hub:alice": true,
			"--as=cluster:hub:alice --as-group=cluster:hub:team-a --as-uid=1":                         true,
			"--as=cluster:hub:system:serviceaccount:ops:robot --as-user-extra=culvert.dev/hub-user=x": true,
			"--as=cluster:hub:mallory": false,
			"--as=admin":               false,
			"--as=cluster:hub:alice --as-group=cluster:hub:team-b": false,
			"--as=cluster:hub:alice --as-group=system:masters":     false,
			"--as=system:serviceaccount:kube-system:default":       false,
		} {
			allowed(ctx, t, kubectl, good, append([]string{"auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"}, strings.Fields(args)...)...)
		}
		if out, err := kubectl.Run(ctx, "get", "namespaces"); err == nil {
			t.Errorf("by itself it lists namespaces: %s", out)
		}
	})
	t.Run("N9: an account with constrained impersonation acts for users as far as it may itself, however much they may", func(t *testing.T) {
		kubectl := account(ctx, t, "agent-rbac-constrained.yaml", "constrained")
		if _, err := the.hubCluster.Kubectl(ctx, "create", "clusterrolebinding", "almighty", "--clusterrole=cluster-admin", "--user=cluster:hub:almighty"); err != nil {
			t.Fatal(err)
		}
		for args, good := range map[string]bool{
			"get namespaces --as=cluster:hub:almighty":                         true,
			"create namespace made --as=cluster:hub:almighty":                  false,
			"get namespaces --as=cluster:hub:mallory":                          false,
			"get namespaces --as=admin --as-group=system:masters":              false,
			"get namespaces --as=system:serviceaccount:kube-system:default":    false,
			"get namespaces --as=system:node:n --as-group=system:nodes":        false,
			"auth whoami --as=cluster:hub:almighty --as-group=cluster:hub:dev": true,
			"get namespaces": false,
		} {
			allowed(ctx, t, kubectl, good, strings.Fields(args)...)
		}
	})
}
