package identity

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

func TestBackendFails(t *testing.T) {
	elsewhere := &backend{}
	other, _ := startBackend(t, elsewhere)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		says   string
	}{
		{"500", writeStatus(500, metav1.StatusReasonInternalError, "etcd is away"), "status 500"},
		{"503", writeStatus(503, metav1.StatusReasonServiceUnavailable, "starting"), "status 503"},
		{"500 from a balancer", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 500) }, "status 500"},
		{"no right to create token reviews", writeStatus(403, metav1.StatusReasonForbidden, `User "hub-account" cannot create`), "system:auth-delegator"},
		{"the hub's own credential refused", writeStatus(401, metav1.StatusReasonUnauthorized, "Unauthorized"), "own credential is refused"},
		{"an answer that is no TokenReview", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, ""},
		{"an answer of HTML", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>ok</html>") }, ""},
		{"a TokenReview of another version", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v9","status":{"error":"x"}}`)
		}, ""},
		{"an answer without an end", func(w http.ResponseWriter, _ *http.Request) {
			for range 3 << 10 {
				_, _ = w.Write(make([]byte, 1<<10))
			}
		}, "larger than"},
		{"a redirect, which is not followed with the token", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, ""},
	} {
		t.Run("O14: a failing token service is 503 and names itself: "+c.name, func(t *testing.T) {
			t.Parallel()
			b := &backend{answer: c.answer}
			server, kubeconfig := startBackend(t, b)
			chain := startChain(t, Config{
				TokenFile:   writeTokenFile(t, "s3cr3t,alice,1\n"),
				TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig},
			})
			u, err := chain.Authenticate(request(t.Context(), "Bearer good"))
			if u != nil {
				t.Fatalf("somebody was let in: %v", u)
			}
			f := wantStatus(t, err, http.StatusServiceUnavailable)
			if !strings.Contains(f.Error(), "token review at "+server.URL) || !strings.Contains(f.Error(), c.says) || f.RetryAfter <= 0 {
				t.Errorf("got %q, retry after %v", f, f.RetryAfter)
			}
			if strings.Contains(f.Error(), "hub-account") {
				t.Errorf("a stranger is told the hub's account: %q", f)
			}
			if u, err := chain.Authenticate(request(t.Context(), "Bearer s3cr3t")); err != nil || u.GetName() != "alice" {
				t.Errorf("a static token does not work while the service fails: %v, %v", u, err)
			}
			b.say(nil)
			if _, err := chain.Authenticate(request(t.Context(), "Bearer good")); err != nil {
				t.Errorf("the failure was kept: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.requests.Load() != 0 {
			t.Error("a token was sent where a redirect pointed")
		}
	})
}

func TestBackendGone(t *testing.T) {
	t.Run("O14: an unreachable token service is 503 and says why", func(t *testing.T) {
		server, kubeconfig := startBackend(t, &backend{})
		server.Close()
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		_, err := chain.Authenticate(request(t.Context(), "Bearer good"))
		f := wantStatus(t, err, http.StatusServiceUnavailable)
		if want := "token review at " + server.URL + ": dial tcp"; !strings.Contains(f.Error(), want) || !strings.HasSuffix(f.Error(), "connection refused") {
			t.Errorf("got %q, want %q and connection refused", f, want)
		}
	})
	t.Run("O14: a token service with a foreign certificate is 503 and gets no token", func(t *testing.T) {
		b := &backend{}
		server, _ := startBackend(t, b)
		kubeconfig := writeKubeconfig(t, &clientcmdapi.Cluster{Server: server.URL})
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		_, err := chain.Authenticate(request(t.Context(), "Bearer good"))
		if f := wantStatus(t, err, http.StatusServiceUnavailable); !strings.Contains(f.Error(), "certificate") || b.requests.Load() != 0 {
			t.Errorf("got %q after %d requests", f, b.requests.Load())
		}
	})
	t.Run("O14: a token service that never answers is 503 within the timeout", func(t *testing.T) {
		release := make(chan struct{})
		server, kubeconfig := startBackend(t, &backend{answer: func(http.ResponseWriter, *http.Request) { <-release }})
		t.Cleanup(func() { close(release) })
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Timeout: 200 * time.Millisecond}})
		started := time.Now()
		_, err := chain.Authenticate(request(t.Context(), "Bearer good"))
		f := wantStatus(t, err, http.StatusServiceUnavailable)
		if !strings.Contains(f.Error(), server.URL+": no answer within 200ms") || time.Since(started) > 5*time.Second {
			t.Errorf("got %q after %v", f, time.Since(started))
		}
	})
}

func TestSingleFlight(t *testing.T) {
	t.Run("O4,K7: many requests with one token are one review", func(t *testing.T) {
		release := make(chan struct{})
		b := &backend{}
		b.say(func(w http.ResponseWriter, r *http.Request) {
			<-release
			as(authenticationv1.UserInfo{Username: "alice"})(w, r)
		})
		_, kubeconfig := startBackend(t, b)
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		results := make(chan error)
		const callers = 200
		for range callers {
			go authenticateInto(chain, request(t.Context(), "Bearer good"), results)
		}
		close(release)
		for range callers {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if n := b.requests.Load(); n != 1 {
			t.Errorf("%d reviews, want 1", n)
		}
	})
}

// lockedBuffer collects logs of several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestTokensStaySecret(t *testing.T) {
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

	const planted = `pl4nt<ed>"tok\en`
	echo := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			writeStatus(code, metav1.StatusReasonInternalError, "cannot judge "+planted)(w, r)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		status int
	}{
		{"accepted", as(authenticationv1.UserInfo{Username: "alice"}), 0},
		{"refused with the token in the reason", func(w http.ResponseWriter, _ *http.Request) {
			writeReview(w, authenticationv1.TokenReviewSpec{Token: planted}, authenticationv1.TokenReviewStatus{Error: "no such token: " + planted})
		}, 401},
		{"failed with the token in the answer", echo(500), 503},
		{"failed with the token in a page", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, planted, 502) }, 503},
	} {
		t.Run("O4: a token is in no log and no error, at any verbosity: "+c.name, func(t *testing.T) {
			b := &backend{answer: c.answer}
			_, kubeconfig := startBackend(t, b)
			chain, err := New(t.Context(), Config{
				TokenFile:   writeTokenFile(t, "static-s3cr3t,alice,1\n"),
				TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig},
			}, log)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(chain.Close)
			u, err := chain.Authenticate(request(t.Context(), "Bearer "+planted))
			if c.status != 0 {
				wantStatus(t, err, c.status)
			} else if err != nil {
				t.Fatal(err)
			}
			if b.tokens[planted] == 0 {
				t.Fatal("the backend did not see the token, so this proves nothing")
			}
			if _, err := chain.Authenticate(request(t.Context(), "Bearer static-s3cr3t")); err != nil {
				t.Fatal(err)
			}
			klog.Flush()
			all := fmt.Sprint(logs.String(), u, err)
			for _, secret := range []string{"pl4nt", "s3cr3t", "own-credential-of-the-hub"} {
				if strings.Contains(all, secret) {
					t.Errorf("%q leaked:\n%s", secret, all)
				}
			}
		})
	}
	if s := logs.String(); !strings.Contains(s, "Failed to make webhook authenticator request") || !strings.Contains(s, "token review refused a token") || !strings.Contains(s, redacted) {
		t.Errorf("logs were not captured, so this proves nothing:\n%s", s)
	}
}

func TestNewRefuses(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, c := range []struct{ name, says, kubeconfig string }{
		{"a kubeconfig that is not there", "tokenReview.kubeconfig", filepath.Join(t.TempDir(), "missing")},
		{"a cluster in clear text", "clear text", writeKubeconfig(t, &clientcmdapi.Cluster{Server: plain.URL})},
		{"a cluster without verification", "insecure-skip-tls-verify", writeKubeconfig(t, &clientcmdapi.Cluster{Server: "https://user:pass@127.0.0.1:1", InsecureSkipTLSVerify: true})},
	} {
		t.Run("O14: refused at the start: "+c.name, func(t *testing.T) {
			_, err := New(t.Context(), Config{TokenReview: &TokenReviewConfig{Kubeconfig: c.kubeconfig}}, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "pass@") {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}
