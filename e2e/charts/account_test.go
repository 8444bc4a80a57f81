package charts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestAccounts(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	c := the.managed
	must(t, restricted(ctx, c, "rights"))
	for name, one := range map[string][2]string{
		"token":       {"agent", "join: {token: culvert-join.a.b}"},
		"certificate": {"agent", `{certificate: {secretName: mine}, hub: {address: "hub:443"}}`},
		"limited":     {"agent", "{join: {token: culvert-join.a.b}, rbac: {mode: limited, users: [cluster:hub:alice], groups: [cluster:hub:dev]}}"},
		"review":      {"hub", "{hub: {publicHost: hub.example.com}, policy: {subjectAccessReview: true}}"},
	} {
		objects, err := manifests(ctx, one[0], one[1], "--namespace", "rights", "--name", name, "--set", "fullnameOverride="+name)
		must(t, err)
		must(t, apply(ctx, c, objects))
	}
	if _, err := c.Kubectl(ctx, "-n", "rights", "create", "serviceaccount", "nobody"); err != nil {
		t.Fatal(err)
	}
	everybody := rights(ctx, t, c, "nobody")
	of := func(account string) []string {
		return slices.DeleteFunc(rights(ctx, t, c, account), func(right string) bool { return slices.Contains(everybody, right) })
	}
	impersonate := []string{"*.authentication.k8s.io [] [] [impersonate]", "groups [] [] [impersonate]", "users [] [] [impersonate]"}
	// A binding counts once the API server has seen it, a moment after it was made.
	have := func(t *testing.T, account string, want []string) {
		t.Helper()
		must(t, testbed.Poll(ctx, "the rights of "+account, func(context.Context) error {
			if got := of(account); !slices.Equal(got, want) {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		}))
	}
	t.Run("K12: beside what every account has, an agent's may impersonate and nothing else", func(t *testing.T) {
		for _, account := range []string{"token", "certificate"} {
			have(t, account, impersonate)
		}
		have(t, "limited", []string{
			"*.authentication.k8s.io [] [] [impersonate]", "groups [] [cluster:hub:dev] [impersonate]",
			"users [] [cluster:hub:alice] [impersonate]", "users [] [system:culvert:agent:rights:limited] [impersonate]",
		})
	})
	t.Run("K12: the user as whom agents keep their Secret has that Secret, and only to read and change it", func(t *testing.T) {
		as := func(args ...string) string {
			out, _ := c.Kubectl(ctx, append([]string{"-n", "rights", "auth", "can-i", "--as", "system:culvert:agent:rights:token"}, args...)...) // it exits with 1 for no
			return strings.TrimSpace(out)
		}
		for question, want := range map[string]string{
			"get secret/token-state": "yes", "patch secret/token-state": "yes", "delete secret/token-state": "no",
			"get secret/limited-state": "no", "list secrets": "no", "create secrets": "no", "get secret/token-join": "no",
		} {
			must(t, testbed.Poll(ctx, question, func(context.Context) error {
				if got := as(strings.Fields(question)...); got != want {
					return fmt.Errorf("%s, want %s", got, want)
				}
				return nil
			}))
		}
	})
	t.Run("K12: beside what every account has, a hub's may create TokenReviews and SubjectAccessReviews and nothing else", func(t *testing.T) {
		have(t, "review", []string{"subjectaccessreviews.authorization.k8s.io [] [] [create]", "tokenreviews.authentication.k8s.io [] [] [create]"})
	})
}

// rights are the lines of kubectl auth can-i --list as a service account, sorted.
func rights(ctx context.Context, t *testing.T, c *testbed.Cluster, account string) []string {
	t.Helper()
	token, err := c.CreateToken(ctx, "rights", account)
	must(t, err)
	ca, err := os.ReadFile(c.CAFile)
	must(t, err)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(file, testbed.Kubeconfig(c.URL, ca, token), 0o600))
	kubectl := c.Admin()
	kubectl.Kubeconfig = file
	out, err := kubectl.Run(ctx, "-n", "rights", "auth", "can-i", "--list", "--no-headers")
	must(t, err)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(lines)
	return lines
}
