package identity

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/rest"
)

// inBubble runs test under a fake clock with a chain whose cluster is b, over TLS
// on in-memory connections.
func inBubble(t *testing.T, b *backend, cfg TokenReviewConfig, test func(t *testing.T, chain *Chain)) {
	t.Helper()
	// Only for its certificate.
	template := httptest.NewUnstartedServer(http.NotFoundHandler())
	template.StartTLS()
	certificates, ca := template.TLS.Certificates, certPEM(template)
	template.Close()
	synctest.Test(t, func(t *testing.T) {
		listener := newPipeListener()
		server := &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		served := make(chan error)
		go serveInto(server, tls.NewListener(listener, &tls.Config{Certificates: certificates}), served)
		cluster := &rest.Config{
			Host: "https://hub-api.example.com", Dial: listener.dial,
			TLSClientConfig: rest.TLSClientConfig{CAData: ca, ServerName: "example.com"},
		}
		chain, err := newChain(t.Context(), Config{TokenReview: &cfg}, cluster, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		test(t, chain)
		chain.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

func serveInto(server *http.Server, listener net.Listener, served chan<- error) {
	served <- server.Serve(listener)
}

func TestCacheAges(t *testing.T) {
	t.Run("O4: an accepted token is asked about again after the cache's time", func(t *testing.T) {
		b := &backend{}
		inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
			for _, step := range []struct {
				wait time.Duration
				want int64
			}{{0, 1}, {0, 1}, {DefaultCacheTTL - time.Millisecond, 1}, {time.Millisecond, 2}, {time.Second, 2}} {
				time.Sleep(step.wait)
				if _, err := chain.Authenticate(request(t.Context(), "Bearer good")); err != nil {
					t.Fatal(err)
				}
				if n := b.requests.Load(); n != step.want {
					t.Fatalf("%d reviews, want %d", n, step.want)
				}
			}
		})
	})
	t.Run("O4: a refused token is asked about again after a second, an accepted one was not kept for longer", func(t *testing.T) {
		b := &backend{}
		inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
			for _, step := range []struct {
				wait time.Duration
				want int64
			}{{0, 1}, {DefaultFailureTTL - time.Millisecond, 1}, {time.Millisecond, 2}} {
				time.Sleep(step.wait)
				_, err := chain.Authenticate(request(t.Context(), "Bearer bad"))
				wantStatus(t, err, http.StatusUnauthorized)
				if n := b.requests.Load(); n != step.want {
					t.Fatalf("%d reviews, want %d", n, step.want)
				}
			}
		})
	})
	t.Run("O4: a cached token does not work past its own expiry", func(t *testing.T) {
		b := &backend{answer: as(authenticationv1.UserInfo{Username: "alice"})}
		inBubble(t, b, TokenReviewConfig{CacheTTL: time.Minute}, func(t *testing.T, chain *Chain) {
			token := jwt(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(5*time.Second).Unix()))
			if _, err := chain.Authenticate(request(t.Context(), "Bearer "+token)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			_, err := chain.Authenticate(request(t.Context(), "Bearer "+token))
			if f := wantStatus(t, err, http.StatusUnauthorized); !strings.Contains(f.Error(), "the token expired at 2000-01-01T00:00:05Z") {
				t.Errorf("got %q", f)
			}
			if n := b.requests.Load(); n != 1 {
				t.Errorf("%d reviews, want 1", n)
			}
		})
	})
}

func TestCacheIsBounded(t *testing.T) {
	t.Run("O4: the cache keeps at most so many verdicts", func(t *testing.T) {
		asked := map[string]int{}
		c := newBoundedCache(authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
			asked[token]++
			return nil, false, nil
		}), time.Minute, time.Minute, 3)
		ask := func(token string) {
			if _, _, err := c.AuthenticateToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		for _, token := range []string{"a", "a", "b", "b", "a"} {
			ask(token)
		}
		if asked["a"] != 1 || asked["b"] != 1 {
			t.Fatalf("asked %v before the bound, want each once", asked)
		}
		ask("c")
		ask("a")
		if asked["a"] != 2 {
			t.Errorf("asked %v after the bound, want a twice", asked)
		}
	})
}

func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		atMost time.Duration
		says   string
	}{
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, DefaultTimeout, "no answer within 10s"},
		{"an answer that stops half way", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, DefaultTimeout, "no answer within 10s"},
		{"500 each time", writeStatus(500, metav1.StatusReasonInternalError, "x"), 3 * time.Second, "status 500"},
		{"429 with Retry-After of an hour", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3600")
			writeStatus(429, metav1.StatusReasonTooManyRequests, "x")(w, r)
		}, DefaultTimeout, ""},
		{"429 with Retry-After of a second", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "1")
			writeStatus(429, metav1.StatusReasonTooManyRequests, "x")(w, r)
		}, DefaultTimeout, ""},
	} {
		t.Run("O14: a failing token service keeps nobody longer than the timeout: "+c.name, func(t *testing.T) {
			b := &backend{answer: c.answer}
			inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
				started := time.Now()
				_, err := chain.Authenticate(request(t.Context(), "Bearer good"))
				f := wantStatus(t, err, http.StatusServiceUnavailable)
				if took := time.Since(started); took > c.atMost || !strings.Contains(f.Error(), c.says) {
					t.Errorf("got %q after %v, want %q within %v", f, took, c.says, c.atMost)
				}
				if n := b.requests.Load(); n < 1 || n > 20 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
	t.Run("O14: a slow token service is waited for", func(t *testing.T) {
		b := &backend{answer: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(DefaultTimeout - time.Millisecond)
			as(authenticationv1.UserInfo{Username: "alice"})(w, r)
		}}
		inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
			if u, err := chain.Authenticate(request(t.Context(), "Bearer good")); err != nil || u.GetName() != "alice" {
				t.Errorf("got %v, %v", u, err)
			}
		})
	})
	t.Run("O14: a token service that fails twice and then answers costs the caller only time", func(t *testing.T) {
		b := &backend{}
		b.say(func(w http.ResponseWriter, r *http.Request) {
			if b.requests.Load() < 3 {
				writeStatus(500, metav1.StatusReasonInternalError, "x")(w, r)
				return
			}
			as(authenticationv1.UserInfo{Username: "alice"})(w, r)
		})
		inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
			if u, err := chain.Authenticate(request(t.Context(), "Bearer good")); err != nil || u.GetName() != "alice" {
				t.Errorf("got %v, %v", u, err)
			}
		})
	})
	t.Run("O4: no more than so many reviews are under way at once", func(t *testing.T) {
		b := &backend{}
		inBubble(t, b, TokenReviewConfig{}, func(t *testing.T, chain *Chain) {
			for range maxReviews {
				chain.review.slots <- struct{}{}
			}
			started := time.Now()
			_, err := chain.Authenticate(request(t.Context(), "Bearer good"))
			wantStatus(t, err, http.StatusServiceUnavailable)
			if took := time.Since(started); took != DefaultTimeout || b.requests.Load() != 0 {
				t.Errorf("%v after %v and %d requests", err, took, b.requests.Load())
			}
			// The lookup that the caller waited for ends at the same instant.
			synctest.Wait()
			<-chain.review.slots
			if _, err := chain.Authenticate(request(t.Context(), "Bearer good")); err != nil {
				t.Error(err)
			}
			for range maxReviews - 1 {
				<-chain.review.slots
			}
		})
	})
}

func jwt(claims string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"none"}`)) + "." + e.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestExpiry(t *testing.T) {
	for token, want := range map[string]int64{
		jwt(`{"exp":1700000000}`):   1700000000,
		jwt(`{"exp":1700000000.5}`): 1700000000,
		jwt(`{"exp":1e300}`):        1 << 40,
		jwt(`{"exp":-1e300}`):       -1 << 40,
		jwt(`{"EXP":1}`):            -1,
		jwt(`{"exp":"1"}`):          -1,
		jwt(`{"exp":null}`):         -1,
		jwt(`[]`):                   -1,
		jwt(`{`):                    -1,
		"opaque":                    -1,
		"a.b":                       -1,
		"a.b.c.d":                   -1,
		"..":                        -1,
		"a.!.c":                     -1,
	} {
		got, ok := expiry(token)
		if ok != (want != -1) || ok && got.Unix() != want {
			t.Errorf("O4: expiry of %q is %v, %v; want %d", token, got, ok, want)
		}
	}
}

func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"", "a.b.c", jwt(`{"exp":1}`), jwt(`{"exp":1e999}`), jwt(`{"exp":{}}`), jwt(`{"exp":9e18}`)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if at, ok := expiry(token); ok && (at.Unix() > 1<<40 || at.Unix() < -(1<<40)-1) {
			t.Errorf("expiry of %q is %v", token, at)
		}
	})
}
