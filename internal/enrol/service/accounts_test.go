package service_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/identity"
)

// accounts judges by TokenReview, of an API server that knows three tokens.
func accounts(t *testing.T) *identity.ServiceAccounts {
	t.Helper()
	known := map[string]authenticationv1.TokenReviewStatus{
		"token-of-agent":    {Authenticated: true, Audiences: []string{"culvert"}, User: authenticationv1.UserInfo{Username: "system:serviceaccount:culvert:agent"}},
		"token-of-other":    {Authenticated: true, Audiences: []string{"culvert"}, User: authenticationv1.UserInfo{Username: "system:serviceaccount:default:other"}},
		"token-of-audience": {Error: "token audiences do not match"},
	}
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		if review.Spec.Token == "token-while-away" {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		review.TypeMeta = metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}
		review.Status = known[review.Spec.Token]
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(api.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: a, user: {}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
`, api.URL, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := identity.NewServiceAccounts(t.Context(), identity.TokenReviewConfig{Kubeconfig: file, Timeout: patience}, []identity.ServiceAccountRule{
		{Audience: "culvert", Namespace: "culvert", Name: "agent", Cluster: "edge-1"},
		{Audience: "culvert", Namespace: "culvert", Name: "agent", Cluster: "edge-2"},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestServiceAccounts(t *testing.T) {
	b := newBed(t, func(c *service.Config) { c.Accounts = accounts(t) })
	join := func(token, cluster string) (*enrol.Enrolment, error) {
		cfg := b.joiner("", "")
		cfg.ServiceAccountToken, cfg.Cluster = token, cluster
		return enrol.Join(t.Context(), cfg)
	}
	t.Run("K6: an account that a rule names joins as the cluster of the rule", func(t *testing.T) {
		got, err := join("token-of-agent", "edge-2")
		if err != nil || got.Cluster != "edge-2" {
			t.Fatalf("%v, %v", got, err)
		}
		if said := b.log.with("agent enrolled"); len(said) != 1 || !strings.Contains(said[0], "credential=system:serviceaccount:culvert:agent") {
			t.Errorf("log: %q", said)
		}
	})
	for _, c := range []struct {
		title, token, cluster string
		reason                culvertv1.EnrolmentReason
		says                  string
	}{
		{"K6: an account without a rule", "token-of-other", "", culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED, "system:serviceaccount:default:other"},
		{"K6: a token for another audience", "token-of-audience", "", culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED, "another audience"},
		{"K6: an unknown token", "token-of-nobody", "", culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED, "wrong, expired"},
		{"K6: a cluster that no rule allows", "token-of-agent", "edge-3", culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED, "edge-3"},
		{"K6: several clusters and none named", "token-of-agent", "", culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_CLUSTER, "edge-1 or edge-2: say which one with --cluster"},
		{"K6: a cluster that judges and is away", "token-while-away", "edge-1", culvertv1.EnrolmentReason_ENROLMENT_REASON_UNAVAILABLE, "does not answer the hub: try again"},
	} {
		t.Run(c.title, func(t *testing.T) {
			before := len(b.log.with("enrolment refused"))
			_, err := join(c.token, c.cluster)
			var refused *enrol.Error
			if !errors.As(err, &refused) || refused.Reason != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
			said := b.log.with("enrolment refused")[before:]
			if len(said) != 1 {
				t.Errorf("log: %q", said)
			}
			t.Logf("agent: %v", err)
			t.Logf("hub: %s", said)
			if strings.Contains(b.log.String(), c.token) {
				t.Error("the log has the token")
			}
		})
	}
	t.Run("N7: an account does not bring back a cluster that was revoked", func(t *testing.T) {
		if _, err := b.store.RevokeCluster("edge-1", "admin", "stolen", time.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := join("token-of-agent", "edge-1")
		var refused *enrol.Error
		if !errors.As(err, &refused) || refused.Reason != culvertv1.EnrolmentReason_ENROLMENT_REASON_CLUSTER_REVOKED ||
			!strings.Contains(err.Error(), "make a join token with culvert token create --cluster edge-1") {
			t.Errorf("%v", err)
		}
	})
}
