package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvertdev/culvert/internal/fault"
)

// hubCluster is a backend that also publishes the keys of its service accounts,
// below a path, as API servers behind a gateway are.
type hubCluster struct {
	backend

	keys  []signingKey
	fails atomic.Int64 // a status to answer for the keys; 0: none
	asked atomic.Int64
}

const gateway = "/k8s/clusters/hub"

func (h *hubCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.URL.Path = strings.TrimPrefix(r.URL.Path, gateway)
	if r.URL.Path != "/"+keysPath {
		h.backend.ServeHTTP(w, r)
		return
	}
	h.asked.Add(1)
	if status := h.fails.Load(); status != 0 {
		http.Error(w, "s3cr3t", int(status))
		return
	}
	if r.Header.Get("Authorization") != "Bearer own-credential-of-the-hub" {
		http.Error(w, "who", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(keySet(h.keys))
}

func startHubCluster(t *testing.T) (*hubCluster, string) {
	t.Helper()
	h := &hubCluster{keys: []signingKey{newSigningKey(t, "hub-1"), newSigningKey(t, "hub-2")}}
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return h, writeKubeconfig(t, &clientcmdapi.Cluster{Server: server.URL + gateway, CertificateAuthorityData: certPEM(server)})
}

// accountToken is a token of a service account that key signed.
func accountToken(t *testing.T, key signingKey, name string, audience string) string {
	t.Helper()
	return signed(t, jose.ES256, key.key, name, map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{audience}, "sub": "system:serviceaccount:a:b",
		"exp": time.Now().Add(time.Hour).Unix(),
	})
}

func TestPassThrough(t *testing.T) {
	hub, kubeconfig := startHubCluster(t)
	issuer := startProvider(t)
	tokens := writeTokenFile(t, "s3cr3t,alice,1\n")
	chain := startChain(t, Config{
		TokenFile: tokens, AuthenticationConfig: writeAuthenticationConfig(t, issuer.jwtConfig("")),
		TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"hub"}},
		PassThrough: []string{"edge-1", "edge-2"},
	})
	managed := newSigningKey(t, "managed-1")
	foreign := accountToken(t, managed, "managed-1", "https://kubernetes.default.svc.cluster.local")
	upgrade := func(token string) *http.Request {
		r := request(t.Context())
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Protocol", "v5.channel.k8s.io, "+bearerProtocol+base64.RawURLEncoding.EncodeToString([]byte(token)))
		return r
	}
	for _, c := range []struct {
		name, cluster string
		r             *http.Request
		token         string
	}{
		{"a token of a service account there, though its issuer has the name of the hub's", "edge-1", bearer(t.Context(), foreign), foreign},
		{"an opaque token", "edge-2", bearer(t.Context(), "opaque~1"), "opaque~1"},
		{"a token in a WebSocket subprotocol", "edge-1", upgrade(foreign), foreign},
	} {
		t.Run("K7: a token that the hub does not know goes to the cluster untouched: "+c.name, func(t *testing.T) {
			caller, err := chain.Identify(c.r, c.cluster)
			if err != nil {
				t.Fatal(err)
			}
			if !caller.PassThrough() || caller.Method != MethodPassThrough || caller.Authorization() != "Bearer "+c.token || caller.User.GetName() != PassThroughUser {
				t.Errorf("got %+v with %q", caller, caller.Authorization())
			}
			if h := c.r.Header; h.Get("Authorization") != "" || strings.Contains(h.Get("Sec-WebSocket-Protocol"), "bearer") {
				t.Errorf("the token is still in the request: %q", h)
			}
			for _, text := range []string{fmt.Sprintf("%v", caller), fmt.Sprintf("%+v", caller), fmt.Sprintf("%#v", caller)} {
				if strings.Contains(text, c.token) {
					t.Errorf("printed with its token: %s", text)
				}
			}
			_, err = newMapper(t, Config{}).Map(caller.User)
			wantStatus(t, err, http.StatusForbidden)
		})
	}
	twice := bearer(t.Context(), foreign)
	twice.Header["culvert_authorization"] = []string{"Bearer x"}
	explicit := bearer(t.Context(), foreign)
	explicit.Header.Set("Culvert-Authorization", "Bearer "+foreign)
	for _, c := range []struct {
		name, cluster string
		r             *http.Request
	}{
		{"to another cluster", "edge-3", bearer(t.Context(), foreign)},
		{"to no cluster's Kubernetes API", "", bearer(t.Context(), foreign)},
		{"to a cluster of almost the name", "Edge-1", bearer(t.Context(), foreign)},
		{"from Culvert-Authorization", "edge-1", explicit},
		{"beside another spelling of Culvert-Authorization", "edge-1", twice},
		{"of the hub's cluster for another audience", "edge-1", bearer(t.Context(), accountToken(t, hub.keys[1], "hub-2", "vault"))},
		{"of the hub's cluster by its key, though forged", "edge-1", bearer(t.Context(), accountToken(t, managed, "hub-1", "x"))},
		{"that does not name its key", "edge-1", bearer(t.Context(), accountToken(t, hub.keys[0], "", "vault"))},
		{"that is over", "edge-1", bearer(t.Context(), signed(t, jose.ES256, managed.key, "managed-1", map[string]any{"exp": 1}))},
		{"of an issuer of the hub that is over", "edge-1", bearer(t.Context(), issuer.token(t, map[string]any{"exp": 1}))},
		{"of an issuer of the hub for another audience", "edge-1", bearer(t.Context(), issuer.token(t, map[string]any{"aud": "x"}))},
		{"in the name of an issuer of the hub", "edge-1", bearer(t.Context(), signed(t, jose.ES256, managed.key, "managed-1", issuer.claims(nil)))},
	} {
		t.Run("K7: a token that may be the hub's is refused and stays at the hub: "+c.name, func(t *testing.T) {
			caller, err := chain.Identify(c.r, c.cluster)
			wantStatus(t, err, http.StatusUnauthorized)
			if caller.PassThrough() || caller.Authorization() != "" {
				t.Errorf("got %+v", caller)
			}
		})
	}
	for token, method := range map[string]Method{"s3cr3t": MethodStaticToken, "good": MethodTokenReview, issuer.token(t, nil): MethodOIDC} {
		t.Run("K7: a token that the hub knows is never handed on: "+string(method), func(t *testing.T) {
			caller, err := chain.Identify(bearer(t.Context(), token), "edge-1")
			if err != nil || caller.Method != method || caller.PassThrough() || caller.Authorization() != "" {
				t.Errorf("got %+v, %v", caller, err)
			}
		})
	}
	t.Run("K7: a request without a token is nobody's", func(t *testing.T) {
		_, err := chain.Identify(request(t.Context()), "edge-1")
		wantStatus(t, err, http.StatusUnauthorized)
	})
	t.Run("K7: a token that was just written to the token file is the hub's at once", func(t *testing.T) {
		if err := os.WriteFile(tokens, []byte("s3cr3t,alice,1\nnew-one,bob,2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		caller, err := chain.Identify(bearer(t.Context(), "new-one"), "edge-1")
		if err != nil || caller.User.GetName() != "bob" || caller.PassThrough() {
			t.Errorf("got %+v, %v", caller, err)
		}
	})
	t.Run("K7: while a file of the hub is bad no token leaves it", func(t *testing.T) {
		if err := os.WriteFile(tokens, []byte("s3cr3t,alice,1\nnewer-one,carol\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			caller, err := chain.Identify(bearer(t.Context(), "newer-one"), "edge-1")
			if f := wantStatus(t, err, http.StatusServiceUnavailable); caller.PassThrough() || strings.Contains(f.Error(), tokens) {
				t.Errorf("got %+v, %v", caller, f)
			}
		}
		if caller, err := chain.Identify(bearer(t.Context(), "s3cr3t"), "edge-1"); err != nil || caller.User.GetName() != "alice" {
			t.Errorf("a known token: %+v, %v", caller, err)
		}
	})
}

func TestPassThroughFailsClosed(t *testing.T) {
	managed := newSigningKey(t, "managed-1")
	start := func(t *testing.T) (*hubCluster, *Chain) {
		t.Helper()
		hub, kubeconfig := startHubCluster(t)
		return hub, startChain(t, Config{
			TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"hub"}}, PassThrough: []string{everyCluster},
		})
	}
	refused := func(t *testing.T, chain *Chain, token string) *fault.Error {
		t.Helper()
		caller, err := chain.Identify(bearer(t.Context(), token), "any-cluster")
		f := wantStatus(t, err, http.StatusServiceUnavailable)
		if caller.PassThrough() || strings.Contains(f.Error(), "s3cr3t") {
			t.Errorf("got %+v, %v", caller, f)
		}
		return f
	}
	token := accountToken(t, managed, "managed-1", "x")
	for status, says := range map[int]string{403: "system:service-account-issuer-discovery", 401: "system:service-account-issuer-discovery", 500: "status 500", 302: "status 302"} {
		t.Run(fmt.Sprintf("N10: without the keys of the hub's cluster (status %d) a foreign token is 503", status), func(t *testing.T) {
			hub, chain := start(t)
			hub.fails.Store(int64(status))
			if f := refused(t, chain, token); !strings.Contains(f.Error(), says) || !strings.Contains(f.Error(), "token review at https://127.0.0.1") {
				t.Errorf("got %q", f)
			}
			hub.fails.Store(0)
			caller, err := chain.Identify(bearer(t.Context(), token), "any-cluster")
			if err != nil || !caller.PassThrough() {
				t.Errorf("the failure was kept: %+v, %v", caller, err)
			}
			before := hub.asked.Load()
			if _, err := chain.Identify(bearer(t.Context(), accountToken(t, managed, "managed-2", "y")), "any-cluster"); err != nil || hub.asked.Load() != before {
				t.Errorf("%v after %d more requests for keys", err, hub.asked.Load()-before)
			}
		})
	}
	t.Run("N10: while the reviewing cluster fails no token is handed on", func(t *testing.T) {
		hub, chain := start(t)
		hub.say(writeStatus(503, "ServiceUnavailable", "s3cr3t"))
		refused(t, chain, "opaque")
		refused(t, chain, token)
	})
	t.Run("N10: where only the second review fails no token is handed on", func(t *testing.T) {
		hub, chain := start(t)
		hub.say(func(w http.ResponseWriter, r *http.Request) {
			var review authenticationv1.TokenReview
			if json.NewDecoder(r.Body).Decode(&review) != nil || len(review.Spec.Audiences) == 0 {
				http.Error(w, "s3cr3t", 503)
				return
			}
			writeReview(w, review.Spec, authenticationv1.TokenReviewStatus{Error: "invalid bearer token"})
		})
		refused(t, chain, "opaque")
	})
	t.Run("K7: a token of the hub's cluster for its default audience is the hub's, though opaque", func(t *testing.T) {
		hub, chain := start(t)
		hub.say(func(w http.ResponseWriter, r *http.Request) {
			var review authenticationv1.TokenReview
			_ = json.NewDecoder(r.Body).Decode(&review)
			if len(review.Spec.Audiences) > 0 {
				writeReview(w, review.Spec, authenticationv1.TokenReviewStatus{Error: "invalid bearer token"})
				return
			}
			as(authenticationv1.UserInfo{Username: "kubernetes-admin"})(w, r)
		})
		caller, err := chain.Identify(bearer(t.Context(), "opaque"), "any-cluster")
		wantStatus(t, err, http.StatusUnauthorized)
		if caller.PassThrough() {
			t.Error("handed on")
		}
	})
	t.Run("K7: no backend can name the user of passed tokens", func(t *testing.T) {
		hub, chain := start(t)
		for _, u := range []authenticationv1.UserInfo{{Username: PassThroughUser}, {Username: "alice", Groups: []string{PassThroughUser}}} {
			hub.say(func(w http.ResponseWriter, r *http.Request) {
				writeReview(w, authenticationv1.TokenReviewSpec{}, authenticationv1.TokenReviewStatus{Authenticated: true, User: u, Audiences: []string{"hub"}})
			})
			_, err := chain.Identify(bearer(t.Context(), "any-"+u.Username), "any-cluster")
			wantStatus(t, err, http.StatusUnauthorized)
		}
	})
}

func TestKeyNames(t *testing.T) {
	for set, want := range map[string]int{
		`{"keys":[{"kid":"a"},{"kid":"b"}]}`: 2, `{"keys":[{"kid":"a"},{}]}`: 0, `{"keys":[]}`: 0, `{}`: 0, `[]`: 0, ``: 0, `<html>`: 0, `{"keys":[{"kid":5}]}`: 0,
	} {
		names, err := keyNames([]byte(set))
		if len(names) != want || (err == nil) != (want > 0) {
			t.Errorf("K7: the keys of %q are %v, %v", set, names, err)
		}
	}
	header := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) + ".e30.c2ln" }
	for token, want := range map[string]struct {
		name   string
		signed bool
	}{
		header(`{"kid":"a"}`): {"a", true}, header(`{"KID":"a"}`): {"a", true}, header(`{}`): {"", true}, header(`{"kid":5}`): {"", true},
		header(`[]`): {"", true}, header(`{`): {"", false}, "opaque": {"", false}, "a.b": {"", false}, "a.b.c.d.e": {"", false},
	} {
		if name, signed := keyName(token); name != want.name || signed != want.signed {
			t.Errorf("K7: the key of %q is %q, %v", token, name, signed)
		}
	}
}

func FuzzKeyNames(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kid":"a"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, set []byte) {
		names, err := keyNames(set)
		if err == nil && (len(names) == 0 || names[""]) {
			t.Errorf("accepted %q as %v", set, names)
		}
	})
}
