package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestAuthenticationConfiguration(t *testing.T) {
	const issuer = "- issuer: {url: https://login.example, audiences: [culvert]}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n"
	with := func(from, to string) string { return authenticationConfig(strings.Replace(issuer, from, to, 1)) }
	for _, c := range []struct{ name, content, want string }{
		{"the newest version", authenticationConfig(issuer), ""},
		{"an older version", strings.Replace(authenticationConfig(issuer), "/v1", "/v1beta1", 1), ""},
		{"JSON", `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":[]}`, ""},
		{"no issuer", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n", ""},
		{"nothing", "", "Kind"},
		{"another kind", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n", "AuthorizationConfiguration"},
		{"a version that is not there", strings.Replace(authenticationConfig(issuer), "/v1", "/v9", 1), "v9"},
		{"an unknown field", with("audiences", "audience"), `unknown field "jwt[0].issuer.audience"`},
		{"a field twice", authenticationConfig(issuer) + "jwt: []\n", "already set"},
		{"two documents", authenticationConfig(issuer) + "---\n" + authenticationConfig(issuer), "several YAML documents"},
		{"an issuer in clear text", with("https://", "http://"), "jwt[0].issuer.url"},
		{"an issuer with a password", with("https://", "https://a:b@"), "jwt[0].issuer.url"},
		{"no audience", with("[culvert]", "[]"), "jwt[0].issuer.audiences"},
		{"an issuer twice", authenticationConfig(issuer, issuer), "jwt[1].issuer.url"},
		{"a CA that is none", with("audiences", "certificateAuthority: x, audiences"), "jwt[0].issuer.certificateAuthority"},
		{"a claim without a prefix", with(", prefix: ''", ""), "jwt[0].claimMappings.username.prefix"},
		{"an expression that does not compile", with("{claim: sub, prefix: ''}", "{expression: claims.}"), "jwt[0].claimMappings.username.expression"},
		{"an egress selector", with("audiences", "egressSelectorType: cluster, audiences"), "jwt[0].issuer.egressSelectorType: a hub has no"},
		{"anonymous callers", authenticationConfig(issuer) + "anonymous: {enabled: true}\n", "anonymous.enabled: "},
		{"anonymous callers on some paths", authenticationConfig(issuer) + "anonymous: {enabled: true, conditions: [{path: /livez}]}\n", "anonymous.enabled: "},
		{"a large file", strings.Repeat("#", maxAuthenticationConfig+1), "larger than"},
	} {
		t.Run("K7: authentication configuration: "+c.name, func(t *testing.T) {
			path := writeAuthenticationConfig(t)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			chain, err := New(t.Context(), Config{AuthenticationConfig: path}, slog.New(slog.DiscardHandler))
			if err == nil {
				chain.Close()
			}
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "authenticationConfig: "+path) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestOIDCReload(t *testing.T) {
	stays, changes, goes := startProvider(t), startProvider(t), startProvider(t)
	path := writeAuthenticationConfig(t, stays.jwtConfig(""), changes.jwtConfig(""), goes.jwtConfig(""))
	var logs lockedBuffer
	chain, err := New(t.Context(), Config{AuthenticationConfig: path}, slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	tokens := map[*provider]string{stays: stays.token(t, nil), changes: changes.token(t, nil), goes: goes.token(t, nil)}
	is := func(t *testing.T, p *provider, want string) {
		t.Helper()
		u, err := chain.Authenticate(bearer(t.Context(), tokens[p]))
		if want == "" {
			wantStatus(t, err, http.StatusUnauthorized)
		} else if err != nil || u.GetName() != want {
			t.Errorf("got %v, %v, want %s", u, err, want)
		}
	}
	write := func(t *testing.T, content string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		chain.oidc.next.Store(0)
	}
	for p := range tokens {
		is(t, p, "oidc:alice")
	}
	t.Run("K7: a bad new configuration keeps the old one, is reported once and shown", func(t *testing.T) {
		for range 3 {
			write(t, authenticationConfig(strings.Replace(stays.jwtConfig(""), "claim: sub", "clam: sub", 1)))
			is(t, goes, "oidc:alice")
		}
		if err := chain.Reload(); err == nil || !strings.Contains(err.Error(), "clam") {
			t.Errorf("Reload: %v", err)
		}
		if h := chain.Health()[0]; h.Name != "authentication configuration" || h.Failures != 1 || !strings.Contains(h.LastError, "clam") {
			t.Errorf("health %+v", h)
		}
		if n := strings.Count(logs.String(), "cannot be used"); n != 1 {
			t.Errorf("reported %d times", n)
		}
	})
	t.Run("K7: a good new configuration counts at once, and an issuer that stays keeps its keys", func(t *testing.T) {
		changed := changes.jwtConfig("  claimMappings:\n    username: {claim: sub, prefix: 'new:'}\n")
		write(t, authenticationConfig(stays.jwtConfig(""), changed))
		is(t, goes, "")
		is(t, changes, "new:alice")
		is(t, stays, "oidc:alice")
		if n := stays.asked(discoveryPath); n != 1 {
			t.Errorf("the issuer that stays was discovered %d times", n)
		}
		if h := chain.Health()[0]; h.LastError != "" {
			t.Errorf("health %+v", h)
		}
	})
	t.Run("K7: a configuration that is gone keeps the old one", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := chain.Reload(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Reload: %v", err)
		}
		is(t, stays, "oidc:alice")
	})
	t.Run("K7: after the end nobody is let in by an issuer that was not asked", func(t *testing.T) {
		chain.Close()
		_, err := chain.Authenticate(bearer(t.Context(), stays.token(t, map[string]any{"sub": "bob"})))
		wantStatus(t, err, http.StatusServiceUnavailable)
	})
}

func TestOIDCKeys(t *testing.T) {
	t.Run("K7: a new key counts, and one that was taken out no longer does", func(t *testing.T) {
		p := startProvider(t)
		chain := startChain(t, Config{AuthenticationConfig: writeAuthenticationConfig(t, p.jwtConfig(""))})
		(*chain.oidc.current.Load())[p.url].transport.interval = 0
		old := p.keys[0]
		if _, err := chain.Authenticate(bearer(t.Context(), p.token(t, nil))); err != nil {
			t.Fatal(err)
		}
		p.publish(newSigningKey(t, "k2"))
		// The library may have a fetch under way that began before, and shares it.
		var err error
		for range 100 {
			if _, err = chain.Authenticate(bearer(t.Context(), p.token(t, nil))); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("the new key: %v", err)
		}
		// The library hands out what a fetch brings before it replaces its keys; a
		// token that was good once is remembered, so that each is another.
		for i := range 100 {
			claims := p.claims(map[string]any{"sub": fmt.Sprint("bob-", i)})
			if _, err = chain.Authenticate(bearer(t.Context(), signed(t, jose.ES256, old.key, old.name, claims))); err != nil {
				break
			}
		}
		wantStatus(t, err, http.StatusUnauthorized)
	})
	t.Run("N10: with its keys gone an issuer's known keys go on, and an unknown one is 503 and not 401", func(t *testing.T) {
		p := startProvider(t)
		chain := startChain(t, Config{AuthenticationConfig: writeAuthenticationConfig(t, p.jwtConfig(""))})
		if _, err := chain.Authenticate(bearer(t.Context(), p.token(t, nil))); err != nil {
			t.Fatal(err)
		}
		(*chain.oidc.current.Load())[p.url].transport.interval = 0
		p.say(jwksPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) })
		if _, err := chain.Authenticate(bearer(t.Context(), p.token(t, map[string]any{"sub": "bob"}))); err != nil {
			t.Errorf("a known key: %v", err)
		}
		fresh := newSigningKey(t, "k2")
		token := signed(t, jose.ES256, fresh.key, fresh.name, p.claims(nil))
		// The library may have a fetch under way that began before the answer
		// changed, and shares what it brings: this asks until a fetch was made.
		ask := func() (err error) {
			before := p.asked(jwksPath)
			for range 100 {
				if _, err = chain.Authenticate(bearer(t.Context(), token)); p.asked(jwksPath) > before {
					return err
				}
			}
			t.Fatalf("no fetch of keys in 100 requests: %v", err)
			return nil
		}
		for range 2 {
			if f := wantStatus(t, ask(), http.StatusServiceUnavailable); !strings.Contains(f.Error(), "status 500") {
				t.Errorf("got %q", f)
			}
		}
		p.publish(fresh)
		p.say(jwksPath, nil)
		if err := ask(); err != nil {
			t.Errorf("the failure was kept: %v", err)
		}
	})
	t.Run("K7: tokens with invented keys are not one request to the issuer each", func(t *testing.T) {
		p := startProvider(t)
		chain := startChain(t, Config{AuthenticationConfig: writeAuthenticationConfig(t, p.jwtConfig(""))})
		started := time.Now()
		stranger := newSigningKey(t, "x")
		const tokens = 100
		for i := range tokens {
			_, err := chain.Authenticate(bearer(t.Context(), signed(t, jose.ES256, stranger.key, "x"+strings.Repeat("y", i), p.claims(nil))))
			wantStatus(t, err, http.StatusUnauthorized)
		}
		if n, most := p.asked(jwksPath), 2+int(time.Since(started)/keysInterval); n > most {
			t.Errorf("%d requests for keys, want at most %d", n, most)
		}
	})
}

func FuzzAuthenticationConfiguration(f *testing.F) {
	f.Add([]byte(authenticationConfig("- issuer: {url: https://a, audiences: [b]}\n")))
	f.Add([]byte("---\n---\n{"))
	f.Add([]byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := decodeAuthentication(data)
		if (config == nil) == (err == nil) {
			t.Errorf("got %v, %v", config, err)
		}
	})
}

func FuzzIssuerOf(f *testing.F) {
	for _, s := range []string{"", "a.b.c", jwt(`{"iss":"https://a"}`), jwt(`{"ISS":"accounts.google.com"}`), jwt(`{"iss":1}`), jwt(`[]`), "a." + "e30.c.d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if issuer := issuerOf(token); issuer != "" && strings.Count(token, ".") != 2 {
			t.Errorf("%q is of %q", token, issuer)
		}
		if name, signed := keyName(token); name != "" && !signed {
			t.Errorf("%q has the key %q and no signature", token, name)
		}
	})
}
