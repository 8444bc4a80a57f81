package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

const celMappings = `  claimMappings:
    username: {expression: "'corp:' + claims.email.lowerAscii()"}
    groups: {expression: "dyn(claims.roles).filter(r, r.startsWith('k8s-')).map(r, r.substring(4))"}
    uid: {claim: sub}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant.id}
  claimValidationRules:
  - {expression: "claims.email_verified == true", message: the address must be verified}
  - {claim: hd, requiredValue: corp.example}
  userValidationRules:
  - {expression: "!user.username.contains('root')", message: not for root}
`

func TestOIDCTokens(t *testing.T) {
	plain, rules := startProvider(t), startProvider(t)
	reviews := &backend{}
	_, kubeconfig := startBackend(t, reviews)
	chain := startChain(t, Config{
		AuthenticationConfig: writeAuthenticationConfig(t, plain.jwtConfig(""), rules.jwtConfig(celMappings)),
		TokenReview:          &TokenReviewConfig{Kubeconfig: kubeconfig},
	})
	corp := map[string]any{
		"email": "Alice@corp.example", "email_verified": true, "hd": "corp.example", "roles": []string{"k8s-ops", "mail"}, "tenant": map[string]any{"id": "t1"},
	}
	with := func(over map[string]any) map[string]any {
		all := map[string]any{}
		maps.Copy(all, corp)
		maps.Copy(all, over)
		return all
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := plain.keys[0]
	for _, c := range []struct {
		name, token string
		want        *user.DefaultInfo
	}{
		{"K7: a token of an issuer is its subject with the prefix", plain.token(t, nil), &user.DefaultInfo{Name: "oidc:alice", Groups: []string{"dev"}}},
		{"K7: one of several audiences is enough", plain.token(t, map[string]any{"aud": []string{"x", "other"}}), &user.DefaultInfo{Name: "oidc:alice", Groups: []string{"dev"}}},
		{"K7: expressions map and check claims", rules.token(t, corp), &user.DefaultInfo{
			Name: "corp:alice@corp.example", UID: "alice", Groups: []string{"ops"}, Extra: map[string][]string{"example.com/tenant": {"t1"}},
		}},
		{"K7: another audience", plain.token(t, map[string]any{"aud": "somebody-else"}), nil},
		{"K7: no audience", plain.token(t, map[string]any{"aud": nil}), nil},
		{"K7: over", plain.token(t, map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), nil},
		{"K7: without an end", plain.token(t, map[string]any{"exp": nil}), nil},
		{"K7: not yet", plain.token(t, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), nil},
		{"K7: no name", plain.token(t, map[string]any{"sub": nil}), nil},
		{"K7: signed with a key of nobody", signed(t, jose.ES256, stranger, "k1", plain.claims(nil)), nil},
		{"K7: signed with an unknown key", signed(t, jose.ES256, stranger, "k9", plain.claims(nil)), nil},
		{"K7: signed with a key of nobody, unnamed", signed(t, jose.ES256, stranger, "", plain.claims(nil)), nil},
		{"K7: signed with the public key as a shared one", signed(t, jose.HS256, publicBytes(t, own.key.Public()), "k1", plain.claims(nil)), nil},
		{"K7: signed by one issuer in the name of another", signed(t, jose.ES256, rules.keys[0].key, "k1", plain.claims(nil)), nil},
		{"K7: not signed", jwt(`{"iss":"` + plain.url + `","aud":"culvert","sub":"alice","exp":99999999999}`), nil},
		{"K7: cut short", strings.TrimSuffix(plain.token(t, nil), "AAAA")[:len(plain.token(t, nil))-8], nil},
		{"K7: a claim that a rule wants is not there", rules.token(t, with(map[string]any{"hd": nil})), nil},
		{"K7: a claim that a rule wants is different", rules.token(t, with(map[string]any{"hd": "other.example"})), nil},
		{"K7: an expression refuses", rules.token(t, with(map[string]any{"email_verified": false})), nil},
		{"K7: an expression finds nothing", rules.token(t, with(map[string]any{"tenant": nil})), nil},
		{"K7: a rule for users refuses", rules.token(t, with(map[string]any{"email": "root@corp.example"})), nil},
		{"K7: the user is nobody", rules.token(t, with(map[string]any{"email": nil})), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bearer(t.Context(), c.token)
			caller, err := chain.Identify(r, "edge-1")
			if c.want == nil {
				f := wantStatus(t, err, http.StatusUnauthorized)
				if strings.Contains(f.Error(), "corp.example") || strings.Contains(f.Error(), c.token) {
					t.Errorf("a stranger is told %q", f)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := caller.User.(*user.DefaultInfo); !reflect.DeepEqual(got, c.want) || caller.Method != MethodOIDC || caller.PassThrough() {
				t.Errorf("got %+v by %s, want %+v", got, caller.Method, c.want)
			}
			if r.Header.Get("Authorization") != "" {
				t.Error("the token is still in the request")
			}
		})
	}
	t.Run("K7: what an issuer refused is asked of nobody else", func(t *testing.T) {
		if n := reviews.requests.Load(); n != 0 {
			t.Errorf("%d token reviews", n)
		}
	})
	for name, issuer := range map[string]string{"a slash more": plain.url + "/", "upper case": strings.ToUpper(plain.url), "another": "https://elsewhere.example"} {
		t.Run("K7: another issuer by "+name+" is not the issuer, and the next backend is asked", func(t *testing.T) {
			before := reviews.requests.Load()
			_, err := chain.Identify(bearer(t.Context(), plain.token(t, map[string]any{"iss": issuer})), "")
			wantStatus(t, err, http.StatusUnauthorized)
			if reviews.requests.Load() != before+1 {
				t.Error("the next backend was not asked")
			}
		})
	}
	t.Run("K7: a token of the next backend works beside issuers", func(t *testing.T) {
		caller, err := chain.Identify(bearer(t.Context(), "good"), "")
		if err != nil || caller.User.GetName() != saName || caller.Method != MethodTokenReview {
			t.Errorf("got %+v, %v", caller, err)
		}
	})
}

func TestOIDCFailures(t *testing.T) {
	otherwise := startProvider(t)
	for _, c := range []struct {
		name, says string
		prepare    func(*provider)
	}{
		{"no discovery", "answered with status 500", func(p *provider) {
			p.say(discoveryPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "s3cr3t-of-the-issuer", 500) })
		}},
		{"discovery in the name of another", "discovery document is not there", func(p *provider) {
			p.say(discoveryPath, func(w http.ResponseWriter, r *http.Request) { otherwise.ServeHTTP(w, r) })
		}},
		{"discovery that is a page", "discovery document is not there", func(p *provider) {
			p.say(discoveryPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		}},
		{"discovery without an end", "larger than", func(p *provider) {
			p.say(discoveryPath, func(w http.ResponseWriter, _ *http.Request) {
				for range 3 << 10 {
					_, _ = w.Write(make([]byte, 1<<10))
				}
			})
		}},
		{"discovery elsewhere in clear text", "not https", func(p *provider) {
			p.say(discoveryPath, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			})
		}},
		{"keys in clear text", "not https", func(p *provider) { p.keysAddress = strings.Replace(p.keysAddress, "https:", "http:", 1) }},
		{"no keys", "answered with status 503", func(p *provider) {
			p.say(jwksPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "s3cr3t-of-the-issuer", 503) })
		}},
		{"keys that are none", "cannot be fetched", func(p *provider) {
			p.say(jwksPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("s3cr3t-of-the-issuer")) })
		}},
		{"a foreign certificate", "certificate", func(p *provider) { p.ca = foreignCA(t) }},
		{"a server that is gone", "connection refused", func(p *provider) { p.ca = "gone" }},
	} {
		t.Run("N10: a failing issuer is 503 and is named: "+c.name, func(t *testing.T) {
			p := startProvider(t)
			token, ca := p.token(t, nil), p.ca
			c.prepare(p)
			if p.ca == "gone" {
				dead := httptestClosed()
				p.url, p.ca = dead, ca
				token = p.token(t, nil)
			}
			reviews := &backend{}
			_, kubeconfig := startBackend(t, reviews)
			chain := startChain(t, Config{
				TokenFile: writeTokenFile(t, "s3cr3t,alice,1\n"), AuthenticationConfig: writeAuthenticationConfig(t, p.jwtConfig("")),
				TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}, PassThrough: []string{"*"},
			})
			caller, err := chain.Identify(bearer(t.Context(), token), "edge-1")
			if caller.User != nil {
				t.Fatalf("somebody was let in: %+v", caller)
			}
			f := wantStatus(t, err, http.StatusServiceUnavailable)
			if !strings.Contains(f.Error(), "oidc issuer "+p.url) || !strings.Contains(f.Error(), c.says) || f.RetryAfter <= 0 || strings.Contains(f.Error(), "s3cr3t") {
				t.Errorf("got %q, want %q", f, c.says)
			}
			if reviews.requests.Load() != 0 {
				t.Error("the token was shown to another backend")
			}
			if caller, err := chain.Identify(bearer(t.Context(), "s3cr3t"), "edge-1"); err != nil || caller.User.GetName() != "alice" || caller.Method != MethodStaticToken {
				t.Errorf("a static token does not work while the issuer fails: %v, %v", caller.User, err)
			}
			if caller, err := chain.Identify(bearer(t.Context(), "good"), "edge-1"); err != nil || caller.Method != MethodTokenReview {
				t.Errorf("a reviewed token does not work while the issuer fails: %v, %v", caller.User, err)
			}
			var health string
			for _, h := range chain.Health() {
				health += h.Name + ": " + strings.Join(h.Warnings, ",") + "\n"
			}
			if !strings.Contains(health, "oidc issuer "+p.url+": its ") || strings.Contains(health, "s3cr3t") {
				t.Errorf("health says %q", health)
			}
		})
	}
}

// TestIssuerIsAlone is about a cluster that reviews tokens and would accept those of
// an issuer that the hub has rules for.
func TestIssuerIsAlone(t *testing.T) {
	strict, failing, other := startProvider(t), startProvider(t), startProvider(t)
	failing.say(jwksPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no keys today", 503) })
	reviews := &backend{}
	reviews.say(as(authenticationv1.UserInfo{Username: "system:serviceaccount:team:robot"}))
	_, kubeconfig := startBackend(t, reviews)
	file := writeAuthenticationConfig(t, strict.jwtConfig(celMappings), failing.jwtConfig(""))
	chain := startChain(t, Config{
		AuthenticationConfig: file, TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}, PassThrough: []string{"*"},
	})
	account := map[string]any{"sub": "system:serviceaccount:team:robot"}
	tokens := map[string]struct {
		token  string
		status int
	}{
		"for the audience of the cluster's API server": {strict.token(t, map[string]any{"sub": account["sub"], "aud": "https://kubernetes.default.svc"}), 401},
		"that a rule refuses":                          {strict.token(t, account), 401},
		"that is over":                                 {strict.token(t, map[string]any{"sub": account["sub"], "exp": 1}), 401},
		"that nobody can judge":                        {failing.token(t, account), 503},
	}
	for name, c := range tokens {
		t.Run("K7: a token of an issuer of the hub is that issuer's alone, though a cluster would accept it: one "+name, func(t *testing.T) {
			caller, err := chain.Identify(bearer(t.Context(), c.token), "edge-1")
			f := wantStatus(t, err, c.status)
			if caller.User != nil || caller.Method != MethodOIDC || reviews.requests.Load() != 0 {
				t.Errorf("caller %v by %s after %d reviews: %v", caller.User, caller.Method, reviews.requests.Load(), f)
			}
		})
	}
	t.Run("K7: once the issuer is no longer the hub's, the cluster judges its tokens", func(t *testing.T) {
		data, err := os.ReadFile(writeAuthenticationConfig(t, other.jwtConfig("")))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(file, data, 0o600), chain.Reload()); err != nil {
			t.Fatal(err)
		}
		for name, c := range tokens {
			caller, err := chain.Identify(bearer(t.Context(), c.token), "edge-1")
			if over := name == "that is over"; over {
				wantStatus(t, err, 401) // nobody needs to be asked about that
			} else if err != nil || caller.Method != MethodTokenReview {
				t.Errorf("one %s: by %s, %v", name, caller.Method, err)
			}
		}
	})
}
