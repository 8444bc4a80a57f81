package identity

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// account answers a review as a cluster does that knows one service account's
// token, made for some audiences.
func account(name string, audiences ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		spec := review.Spec
		status := authenticationv1.TokenReviewStatus{Error: "token audiences are not those wanted"}
		both := slices.DeleteFunc(slices.Clone(spec.Audiences), func(a string) bool { return !slices.Contains(audiences, a) })
		if len(both) > 0 {
			status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: name}, Audiences: both}
		}
		writeReview(w, spec, status)
	}
}

func TestServiceAccounts(t *testing.T) {
	b := &backend{}
	_, kubeconfig := startBackend(t, b)
	rules := []ServiceAccountRule{
		{Audience: "culvert", Namespace: "culvert-agent", Name: "agent", Cluster: "edge-1"},
		{Audience: "culvert", Namespace: "culvert-agent", Name: "two", Cluster: "edge-2"},
		{Audience: "culvert", Namespace: "culvert-agent", Name: "two", Cluster: "edge-3"},
		{Audience: "other", Namespace: "culvert-agent", Name: "agent", Cluster: "edge-4"},
	}
	s, err := NewServiceAccounts(t.Context(), TokenReviewConfig{Kubeconfig: kubeconfig}, rules, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	const agent, two = "system:serviceaccount:culvert-agent:agent", "system:serviceaccount:culvert-agent:two"
	for _, c := range []struct {
		name, wanted, cluster string
		answer                http.HandlerFunc
		code                  int
		says                  string
	}{
		{"the one cluster of an account", "", "edge-1", account(agent, "culvert"), 0, ""},
		{"the cluster that the agent names", "edge-3", "edge-3", account(two, "culvert"), 0, ""},
		{"a choice has to be made", "", "", account(two, "culvert"), 400, "edge-2 or edge-3: say which one with --cluster"},
		{"another cluster's name", "edge-2", "", account(agent, "culvert"), 403, "lets " + agent + " join as cluster edge-2"},
		{"a token for another audience", "", "", account(agent, "https://kubernetes.default.svc"), 401, "another audience, want one for culvert or other"},
		{"the audience decides which rule fits", "edge-1", "", account(agent, "other"), 403, "as cluster edge-1"},
		{"another namespace", "", "", account("system:serviceaccount:default:agent", "culvert"), 403, "no rule in enrolment.serviceAccounts"},
		{"another name", "", "", account("system:serviceaccount:culvert-agent:default", "culvert"), 403, "no rule in enrolment.serviceAccounts"},
		{"a person", "", "", account("alice", "culvert"), 403, `"alice", who is no service account`},
		{"a cluster that cannot judge", "", "", writeStatus(503, "ServiceUnavailable", "starting"), 503, "token review at"},
	} {
		t.Run("K6: a service account's token joins by audience, namespace and name: "+c.name, func(t *testing.T) {
			b.say(c.answer)
			cluster, _, err := s.Verify(t.Context(), "t0ken", c.wanted)
			if c.code == 0 {
				if err != nil || cluster != c.cluster {
					t.Errorf("%q, %v, want %s", cluster, err, c.cluster)
				}
				return
			}
			if f := wantStatus(t, err, c.code); !strings.Contains(f.Error(), c.says) || strings.Contains(f.Error(), "t0ken") || cluster != "" {
				t.Errorf("got %q for %q, want %q", f, cluster, c.says)
			}
		})
	}
	t.Run("K6: no verdict is kept, and nobody is asked about nonsense", func(t *testing.T) {
		b.say(account(agent, "culvert"))
		before := b.requests.Load()
		for range 2 {
			if _, _, err := s.Verify(t.Context(), "again", ""); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.requests.Load() - before; n != 2 {
			t.Errorf("%d reviews, want 2", n)
		}
		for _, token := range []string{"", "a b", strings.Repeat("x", maxToken+1)} {
			_, _, err := s.Verify(t.Context(), token, "")
			wantStatus(t, err, http.StatusUnauthorized)
		}
		if n := b.requests.Load() - before; n != 2 {
			t.Errorf("%d reviews, want 2", n)
		}
	})
}

func TestServiceAccountRules(t *testing.T) {
	err := CheckServiceAccountRules("enrolment.serviceAccounts", []ServiceAccountRule{
		{Audience: "a", Namespace: "n", Name: "n.m", Cluster: "c"},
		{Namespace: "*", Name: "A", Cluster: "c.d"},
	})
	for _, want := range []string{"enrolment.serviceAccounts[1].audience: required", "[1].namespace: \"*\"", "[1].name: \"A\"", "[1].cluster: \"c.d\""} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "[0]") {
		t.Errorf("a good rule is refused: %v", err)
	}
	if _, err := NewServiceAccounts(t.Context(), TokenReviewConfig{}, nil, nil); err == nil || !strings.Contains(err.Error(), "tokenReview: no cluster") {
		t.Errorf("got %v", err)
	}
}
