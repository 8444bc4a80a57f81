package identity

import (
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/klog/v2"
)

func TestIssuersKeepTokensSecret(t *testing.T) {
	var logs lockedBuffer
	state := klog.CaptureState()
	t.Cleanup(state.Restore)
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	if err := flags.Parse([]string{"-v=10", "-logtostderr=false", "-alsologtostderr=false", "-stderrthreshold=FATAL"}); err != nil {
		t.Fatal(err)
	}
	klog.SetOutput(&logs)
	log := slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))

	p := startProvider(t)
	hub, kubeconfig := startHubCluster(t)
	chain, err := New(t.Context(), Config{
		AuthenticationConfig: writeAuthenticationConfig(t, p.jwtConfig("")), PassThrough: []string{everyCluster},
		TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"hub"}},
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	stranger := newSigningKey(t, "x")
	tokens := map[string]int{
		p.token(t, nil): 0,
		p.token(t, map[string]any{"aud": "elsewhere"}):           401,
		signed(t, jose.ES256, stranger.key, "k1", p.claims(nil)): 401,
		accountToken(t, stranger, "managed-1", "x"):              0,
		accountToken(t, hub.keys[0], "hub-1", "x"):               401,
		"pl4nted-opaque": 0,
	}
	for token, status := range tokens {
		t.Run(fmt.Sprintf("D7: a token is in no log and no error, at any verbosity: one with the answer %d", status), func(t *testing.T) {
			caller, err := chain.Identify(bearer(t.Context(), token), "edge-1")
			if status == 0 && err != nil || status != 0 && wantStatus(t, err, status) == nil {
				t.Fatal(err)
			}
			if text := fmt.Sprintf("%+v %#v %v", caller, caller, err); strings.Contains(text, token) {
				t.Errorf("printed: %s", text)
			}
		})
	}
	klog.Flush()
	all := logs.String()
	for token := range tokens {
		for _, part := range append(strings.Split(token, "."), token) {
			if len(part) > 12 && !strings.HasPrefix(part, "eyJ") && strings.Contains(all, part) {
				t.Errorf("D7: %q is in the logs:\n%s", part, all)
			}
		}
	}
	if !strings.Contains(all, "oidc issuer's token is refused") {
		t.Errorf("D7: logs were not captured, so this proves nothing:\n%s", all)
	}
}
