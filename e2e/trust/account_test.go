package trust

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runInside is run in the private network, with both outputs.
func runInside(ctx context.Context, name string, args ...string) (out string, err error) {
	cmd := exec.CommandContext(ctx, bin(name), args...)
	cmd.Env = append(os.Environ(), processEnv()...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err = the.private.Inside.Run(cmd)
	return text.String(), err
}

// TestServiceAccount runs a hub beside the API server that judges the tokens.
func TestServiceAccount(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 3*time.Minute)
	reviewer, err := the.managed.ReviewerKubeconfig(ctx)
	must(t, err)
	token, err := tokenOf(reviewer)
	must(t, err)
	the.plant("the hub's own token", token)
	h := startHub(ctx, t, "accounts", hubConfig{inside: true, yaml: fmt.Sprintf(`tokenReview: {kubeconfig: %s}
enrolment:
  serviceAccounts:
  - {audience: culvert, namespace: culvert-agent, name: culvert-agent, cluster: by-account}
`, reviewer)})
	attempt := func(t *testing.T, name, namespace, account, audience, cluster string) (dir, out string, err error) {
		t.Helper()
		token, err := the.managed.CreateToken(ctx, namespace, account, "--audience="+audience)
		must(t, err)
		the.plant("the service account token "+name, token)
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(token), 0o600))
		dir = agentDir("account-" + name)
		out, err = runInside(ctx, "culvert-agent", "join", "--service-account-token-file", file, "--hub", h.addr(), "--hub-ca", h.caFile(),
			"--cluster", cluster, "--state", dir, "--enrol-only")
		return dir, out, err
	}
	t.Run("K6: an agent joins with the token of a service account that the hub has a rule for", func(t *testing.T) {
		dir, out, err := attempt(t, "good", "culvert-agent", "culvert-agent", "culvert", "by-account")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cert, err := leafOf(filepath.Join(dir, "tls.crt"))
		must(t, err)
		if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://culvert.local/cluster/by-account" {
			t.Errorf("the certificate is for %v", cert.URIs)
		}
	})
	t.Run("K6: one for another audience, of another account, or for another cluster does not join", func(t *testing.T) {
		for _, c := range []struct{ name, namespace, account, audience, cluster string }{
			{"audience", "culvert-agent", "culvert-agent", "other", "by-account"},
			{"account", "culvert-hub", "culvert-hub", "culvert", "by-account"},
			{"cluster", "culvert-agent", "culvert-agent", "culvert", "elsewhere"},
		} {
			skip := len(logLines(t, h.process.Log(), ""))
			dir, out, err := attempt(t, c.name, c.namespace, c.account, c.audience, c.cluster)
			if err == nil {
				t.Errorf("%s: it joined", c.name)
			}
			if _, err := leafOf(filepath.Join(dir, "tls.crt")); err == nil {
				t.Errorf("%s: there is a certificate", c.name)
			}
			t.Logf("%s: client: %s", c.name, strings.TrimSpace(out))
			t.Logf("%s: hub: %s", c.name, awaitLine(ctx, t, h.process.Log(), skip, "enrolment refused"))
		}
	})
}
