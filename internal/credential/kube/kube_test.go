package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseAccount(t *testing.T) {
	for _, bad := range []string{"", "a", "a/", "/a", "a/b/c"} {
		if _, _, err := ParseAccount(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
}

func TestRequest(t *testing.T) {
	var asked authenticationv1.TokenRequest
	expires := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/ops/serviceaccounts/robot/token" || r.Header.Get("Authorization") != "Bearer own" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","message":"you may not"}`)
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		asked.Status = authenticationv1.TokenRequestStatus{Token: "bound", ExpirationTimestamp: metav1.NewTime(expires)}
		w.WriteHeader(http.StatusCreated)
		if err := json.NewEncoder(w).Encode(asked); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	source := Request{
		Namespace: "ops", Name: "robot", Audiences: []string{"culvert"}, Duration: 90*time.Minute + time.Millisecond,
		Cluster: func(context.Context) (*rest.Config, error) {
			return &rest.Config{Host: server.URL, BearerToken: "own"}, nil
		},
	}
	token, err := source.Fetch(t.Context())
	if err != nil || token.Value != "bound" || !token.Expires.Equal(expires) || *asked.Spec.ExpirationSeconds != 5401 || asked.Spec.Audiences[0] != "culvert" {
		t.Errorf("%v %+v", err, asked.Spec)
	}
	other := source
	other.Name = "other"
	if _, err := other.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "ops/other") || !strings.Contains(err.Error(), "you may not") {
		t.Errorf("%v", err)
	}
	if other.Key() == source.Key() {
		t.Error("two service accounts have one key")
	}
}

func TestExecCredential(t *testing.T) {
	for info, good := range map[string]bool{
		"": true, `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}`: true,
		`{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential"}`: false, "{": false,
	} {
		if err := CheckInfo(info); (err == nil) != good {
			t.Errorf("%q: %v", info, err)
		}
	}
	now := time.Now()
	var out strings.Builder
	if err := Write(&out, credential.Token{Value: "x", Got: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Status struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Status.Token != "x" || got.Status.ExpirationTimestamp.After(now.Add(55*time.Minute)) {
		t.Errorf("%v %s", err, out.String())
	}
}
