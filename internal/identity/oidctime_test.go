package identity

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issuerInBubble runs test under a fake clock with a chain whose one issuer is p,
// over TLS on in-memory connections.
func issuerInBubble(t *testing.T, p *provider, test func(t *testing.T, chain *Chain)) {
	t.Helper()
	// Only for its certificate, which is of example.com.
	template := httptest.NewUnstartedServer(http.NotFoundHandler())
	template.StartTLS()
	certificates := template.TLS.Certificates
	p.url, p.ca, p.keysAddress = "https://example.com", string(certPEM(template)), "https://example.com"+jwksPath
	template.Close()
	path := writeAuthenticationConfig(t, p.jwtConfig(""))
	synctest.Test(t, func(t *testing.T) {
		listener := newPipeListener()
		server := &http.Server{Handler: p, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		served := make(chan error)
		go serveInto(server, tls.NewListener(listener, &tls.Config{Certificates: certificates}), served)
		chain := startChain(t, Config{TokenFile: writeTokenFile(t, "s3cr3t,alice,1\n")})
		var err error
		chain.oidc, err = newIssuerFile(t.Context(), path, listener.dial, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		chain.backends = append(chain.backends, tokenJudge{MethodOIDC, chain.oidc})
		test(t, chain)
		chain.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	return &provider{keys: []signingKey{newSigningKey(t, "k1")}, hits: map[string]int{}, answers: map[string]http.HandlerFunc{}}
}

func TestOIDCTime(t *testing.T) {
	t.Run("N10: an issuer that comes back is found within 10 s, and until then callers get 503 at once", func(t *testing.T) {
		p := newProvider(t)
		p.say(discoveryPath, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 502) })
		issuerInBubble(t, p, func(t *testing.T, chain *Chain) {
			token := p.token(t, nil)
			synctest.Wait()
			_, err := chain.Authenticate(bearer(t.Context(), token))
			if f := wantStatus(t, err, http.StatusServiceUnavailable); !strings.Contains(f.Error(), "oidc issuer https://example.com: its discovery document is not there yet: answered with status 502") {
				t.Errorf("got %q", f)
			}
			p.say(discoveryPath, nil)
			time.Sleep(11 * time.Second)
			if u, err := chain.Authenticate(bearer(t.Context(), token)); err != nil || u.GetName() != "oidc:alice" {
				t.Errorf("got %v, %v", u, err)
			}
		})
	})
	t.Run("N10: an issuer that never answers keeps nobody longer than the timeout", func(t *testing.T) {
		for _, path := range []string{discoveryPath, jwksPath} {
			p := newProvider(t)
			p.say(path, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			issuerInBubble(t, p, func(t *testing.T, chain *Chain) {
				started := time.Now()
				_, err := chain.Authenticate(bearer(t.Context(), p.token(t, nil)))
				wantStatus(t, err, http.StatusServiceUnavailable)
				if took := time.Since(started); took > DefaultTimeout {
					t.Errorf("%v after %v", err, took)
				}
				if u, err := chain.Authenticate(bearer(t.Context(), "s3cr3t")); err != nil || u.GetName() != "alice" {
					t.Errorf("a static token meanwhile: %v, %v", u, err)
				}
			})
		}
	})
	t.Run("K7: a token in the cache does not work past its own end", func(t *testing.T) {
		p := newProvider(t)
		issuerInBubble(t, p, func(t *testing.T, chain *Chain) {
			token := p.token(t, map[string]any{"exp": time.Now().Add(5 * time.Second).Unix()})
			for range 2 {
				if _, err := chain.Authenticate(bearer(t.Context(), token)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(5 * time.Second)
			_, err := chain.Authenticate(bearer(t.Context(), token))
			if f := wantStatus(t, err, http.StatusUnauthorized); !strings.Contains(f.Error(), "the token expired at") {
				t.Errorf("got %q", f)
			}
		})
	})
	t.Run("K7: a key that was taken out no longer counts after the cache's time, also for a token that was accepted", func(t *testing.T) {
		p := newProvider(t)
		issuerInBubble(t, p, func(t *testing.T, chain *Chain) {
			token := p.token(t, nil)
			if _, err := chain.Authenticate(bearer(t.Context(), token)); err != nil {
				t.Fatal(err)
			}
			p.publish(newSigningKey(t, "k2"))
			if _, err := chain.Authenticate(bearer(t.Context(), p.token(t, nil))); err != nil {
				time.Sleep(keysInterval) // the answer is used again for that long
				if _, err := chain.Authenticate(bearer(t.Context(), p.token(t, nil))); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(DefaultCacheTTL)
			_, err := chain.Authenticate(bearer(t.Context(), token))
			wantStatus(t, err, http.StatusUnauthorized)
		})
	})
}
