package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider is an OIDC issuer over HTTPS: discovery and keys, no login.
type provider struct {
	url string
	ca  string

	mu          sync.Mutex
	keys        []signingKey
	hits        map[string]int
	answers     map[string]http.HandlerFunc
	keysAddress string
}

type signingKey struct {
	name string
	key  *ecdsa.PrivateKey
}

const (
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/keys"
)

func newSigningKey(t testing.TB, name string) signingKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{name, key}
}

// startProvider serves an issuer with the key "k1" on a port of its own.
func startProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{keys: []signingKey{newSigningKey(t, "k1")}, hits: map[string]int{}, answers: map[string]http.HandlerFunc{}}
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	p.url, p.ca, p.keysAddress = server.URL, string(certPEM(server)), server.URL+jwksPath
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.hits[r.URL.Path]++
	answer, keys, address := p.answers[r.URL.Path], p.keys, p.keysAddress
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case answer != nil:
		answer(w, r)
	case r.URL.Path == discoveryPath:
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": p.url, "jwks_uri": address, "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	case r.URL.Path == jwksPath:
		_ = json.NewEncoder(w).Encode(keySet(keys))
	default:
		http.NotFound(w, r)
	}
}

func keySet(keys []signingKey) jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key.Public(), KeyID: k.name, Algorithm: "ES256", Use: "sig"})
	}
	return set
}

func (p *provider) say(path string, answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[path] = answer
}

func (p *provider) publish(keys ...signingKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *provider) asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits[path]
}

// claims are those of a good token of p for alice, with others over them; nil takes
// one out.
func (p *provider) claims(over map[string]any) map[string]any {
	c := map[string]any{
		"iss": p.url, "aud": "culvert", "sub": "alice", "groups": []string{"dev"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(c, over)
	for name, value := range c {
		if value == nil {
			delete(c, name)
		}
	}
	return c
}

func (p *provider) token(t testing.TB, over map[string]any) string {
	t.Helper()
	p.mu.Lock()
	key := p.keys[0]
	p.mu.Unlock()
	return signed(t, jose.ES256, key.key, key.name, p.claims(over))
}

func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, name string, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if name != "" {
		options.WithHeader("kid", name)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// publicBytes is what somebody who takes a public key for a shared one would sign with.
func publicBytes(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// jwtConfig is an entry of jwt for p, with more lines of YAML in it.
func (p *provider) jwtConfig(more string) string {
	entry := fmt.Sprintf("- issuer:\n    url: %s\n    audiences: [culvert, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n%s",
		p.url, indent(p.ca, "      "))
	if more == "" {
		more = "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    groups: {claim: groups, prefix: ''}\n"
	}
	return entry + more
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by) + "\n"
}

func authenticationConfig(entries ...string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n" + strings.Join(entries, "")
}

func writeAuthenticationConfig(t testing.TB, entries ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(path, []byte(authenticationConfig(entries...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func bearer(ctx context.Context, token string) *http.Request { return request(ctx, "Bearer "+token) }

// foreignCA is a CA that signed nothing here.
func foreignCA(t *testing.T) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newTestCA(t).cert.Raw}))
}

// httptestClosed returns an https address where nobody listens any more.
func httptestClosed() string {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	return server.URL
}
