package identity

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// TestIssuerIsAlone is about a hub whose TokenReview asks a real API server, and
// which has the issuer of that server's own service accounts among its OIDC issuers.
func TestIssuerIsAlone(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	reviewer, err := the.managed.ReviewerKubeconfig(ctx)
	must(t, err)
	own, err := tokenOf(reviewer)
	must(t, err)
	the.plant("the token of a reviewer at the managed cluster", own)
	file := filepath.Join(testbed.Dir(), "authentication-alone.yaml")
	must(t, os.WriteFile(file, the.authentication(), 0o600))
	h, err := newHub(ctx, "alone", fmt.Sprintf("tokenReview: {kubeconfig: %s}\nauthenticationConfig: %s\n", reviewer, file))
	must(t, err)
	t.Cleanup(func() { must(t, h.stop()) })
	token := func(flags ...string) string {
		text, err := the.managed.CreateToken(ctx, "work", "caller", flags...)
		must(t, err)
		the.plant("a token of the managed cluster for "+strings.Join(flags, " "), text)
		return text
	}
	// Whoever is known is told that there is no such cluster.
	await := func(token string, want int) reply {
		t.Helper()
		return h.await(ctx, t, call{path: "/nowhere/version", token: token}, want)
	}
	listed, standard := token("--audience=culvert-workloads"), token()
	t.Run("O14,K7: a token that the hub's rules refuse is not asked of the API server that would take it", func(t *testing.T) {
		await(listed, 404) // so the issuer's keys are there
		got := await(standard, 401)
		if s, err := statusIn(got); err != nil || s.Reason != "Unauthorized" || !strings.Contains(s.Message, managedIssuer) {
			t.Errorf("%v %s", err, got.body)
		}
	})
	t.Run("O14,K7: without that issuer the same API server judges both, for its own audience", func(t *testing.T) {
		must(t, os.WriteFile(file, bytes.Replace(the.authentication(), []byte(managedIssuer), []byte("https://elsewhere.example"), 1), 0o600))
		await(standard, 404)
		await(listed, 401)
	})
}
