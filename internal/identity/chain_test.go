package identity

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestCredentials(t *testing.T) {
	chain := startChain(t, Config{TokenFile: writeTokenFile(t, "s3cr3t,alice,1,\"dev,ops\"\n")})
	long := strings.Repeat("x", maxToken+1)
	for _, c := range []struct {
		name   string
		values []string
		reason string
	}{
		{"a bearer token is accepted", []string{"Bearer s3cr3t"}, ""},
		{"the scheme is read in any letter case", []string{"bEaReR s3cr3t"}, ""},
		{"no credential", nil, "no credential"},
		{"a wrong token", []string{"Bearer other"}, "wrong, expired"},
		{"two headers, though one is right", []string{"Bearer s3cr3t", "Bearer s3cr3t"}, "2 Authorization headers"},
		{"another scheme", []string{"Basic czNjcjN0"}, "not of the Bearer scheme"},
		{"the token alone is not repeated in the error", []string{"s3cr3t"}, "not of the Bearer scheme"},
		{"a scheme alone", []string{"Bearer"}, "no token after Bearer"},
		{"an empty header", []string{""}, "not of the Bearer scheme"},
		{"two tokens in one header", []string{"Bearer s3cr3t other"}, "has a space"},
		{"two spaces", []string{"Bearer  s3cr3t"}, "has a space"},
		{"a tab", []string{"Bearer\ts3cr3t"}, "not of the Bearer scheme"},
		{"a control character", []string{"Bearer s3\x01cr3t"}, "control character"},
		{"a list with a comma", []string{"Bearer s3cr3t,Bearer s3cr3t"}, "has a space"},
		{"a very long token", []string{"Bearer " + long}, "longer than"},
	} {
		t.Run("O18: "+c.name, func(t *testing.T) {
			r := request(t.Context(), c.values...)
			u, err := chain.Authenticate(r)
			if c.reason == "" {
				if err != nil || u.GetName() != "alice" || u.GetUID() != "1" || !slices.Equal(u.GetGroups(), []string{"dev", "ops"}) {
					t.Fatalf("got %v, %v; want alice", u, err)
				}
				if r.Header.Get("Authorization") != "" {
					t.Error("the credential is still in the request")
				}
				return
			}
			f := wantStatus(t, err, http.StatusUnauthorized)
			if !strings.Contains(f.Error(), c.reason) || strings.Contains(f.Error(), "s3cr3t") {
				t.Errorf("got %q, want the reason %q and no credential", f, c.reason)
			}
		})
	}
}

func TestSubprotocol(t *testing.T) {
	chain := startChain(t, Config{TokenFile: writeTokenFile(t, "s3cr3t,alice,1\n")})
	encoded := bearerProtocol + base64.RawURLEncoding.EncodeToString([]byte("s3cr3t"))
	upgrade := func(authorization string, protocols ...string) *http.Request {
		r := request(t.Context())
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		for _, p := range protocols {
			r.Header.Add("Sec-WebSocket-Protocol", p)
		}
		return r
	}
	t.Run("O18: a token in a WebSocket subprotocol is accepted and removed", func(t *testing.T) {
		r := upgrade("", "v5.channel.k8s.io, "+encoded, "v4.channel.k8s.io")
		u, err := chain.Authenticate(r)
		if err != nil || u.GetName() != "alice" {
			t.Fatalf("got %v, %v; want alice", u, err)
		}
		if got := r.Header.Values("Sec-WebSocket-Protocol"); !slices.Equal(got, []string{"v5.channel.k8s.io,v4.channel.k8s.io"}) {
			t.Errorf("subprotocols left are %q", got)
		}
	})
	for _, c := range []struct {
		name, reason string
		request      *http.Request
	}{
		{"one that is wrong", "wrong, expired", upgrade("", "binary, "+bearerProtocol+"b3RoZXI")},
		{"one that is not base64url", "encoding", upgrade("", "binary, "+bearerProtocol+"$$$")},
		{"one without another subprotocol", "missing additional subprotocol", upgrade("", encoded)},
		{"two of them", "multiple", upgrade("", "binary", encoded, encoded)},
		{"one beside an Authorization header", "send one", upgrade("Bearer s3cr3t", "binary", encoded)},
		{"one with a control character", "control character", upgrade("", "binary", bearerProtocol+base64.RawURLEncoding.EncodeToString([]byte("a\nb")))},
		{"one without an upgrade", "no credential", func() *http.Request {
			r := request(t.Context())
			r.Header.Set("Sec-WebSocket-Protocol", "binary, "+encoded)
			return r
		}()},
	} {
		t.Run("O18: refused subprotocol token: "+c.name, func(t *testing.T) {
			_, err := chain.Authenticate(c.request)
			if f := wantStatus(t, err, http.StatusUnauthorized); !strings.Contains(f.Error(), c.reason) {
				t.Errorf("got %q, want the reason %q", f, c.reason)
			}
		})
	}
}

func TestTokenReviewUsers(t *testing.T) {
	t.Run("O14: a service account's token is judged by the hub cluster", func(t *testing.T) {
		_, kubeconfig := startBackend(t, &backend{})
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		u, err := chain.Authenticate(request(t.Context(), "Bearer good"))
		if err != nil {
			t.Fatal(err)
		}
		if u.GetName() != saName || u.GetUID() != "uid-1" || len(u.GetGroups()) != 2 || len(u.GetExtra()) != 1 {
			t.Errorf("got %+v", u)
		}
	})
	t.Run("O14: a token that the hub cluster refuses with a reason is 401", func(t *testing.T) {
		_, kubeconfig := startBackend(t, &backend{})
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		_, err := chain.Authenticate(request(t.Context(), "Bearer bad"))
		wantStatus(t, err, http.StatusUnauthorized)
	})
	t.Run("O14: a token cannot cut anything out of the verdict on it", func(t *testing.T) {
		_, kubeconfig := startBackend(t, &backend{})
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		for _, token := range []string{"e", "status", `"error":`, "{", "invalid"} {
			_, err := chain.Authenticate(request(t.Context(), "Bearer "+token))
			wantStatus(t, err, http.StatusUnauthorized)
		}
	})
	t.Run("O14: the audience is asked for and checked", func(t *testing.T) {
		b := &backend{}
		_, kubeconfig := startBackend(t, b)
		right := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"other", "hub"}}})
		if _, err := right.Authenticate(request(t.Context(), "Bearer good")); err != nil {
			t.Errorf("right audience: %v", err)
		}
		wrong := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"other"}}})
		_, err := wrong.Authenticate(request(t.Context(), "Bearer good"))
		wantStatus(t, err, http.StatusUnauthorized)
		// A cluster that ignores audiences authenticates without confirming one.
		b.say(as(authenticationv1.UserInfo{Username: "alice"}))
		_, err = wrong.Authenticate(request(t.Context(), "Bearer unconfirmed"))
		wantStatus(t, err, http.StatusUnauthorized)
	})
	for name, u := range map[string]authenticationv1.UserInfo{
		"system:anonymous":          {Username: "system:anonymous"},
		"system:unauthenticated":    {Username: "alice", Groups: []string{"system:unauthenticated"}},
		"a user without a name":     {UID: "7"},
		"anonymous with a nice UID": {Username: "system:anonymous", UID: "7", Groups: []string{"system:authenticated"}},
	} {
		t.Run("O14: a backend that takes strangers in is not believed: "+name, func(t *testing.T) {
			b := &backend{answer: as(u)}
			_, kubeconfig := startBackend(t, b)
			chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
			_, err := chain.Authenticate(request(t.Context(), "Bearer any"))
			wantStatus(t, err, http.StatusUnauthorized)
		})
	}
	t.Run("O14: the static file is asked first and the cluster does not see its tokens", func(t *testing.T) {
		b := &backend{}
		_, kubeconfig := startBackend(t, b)
		chain := startChain(t, Config{TokenFile: writeTokenFile(t, "good,static,1\n"), TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		u, err := chain.Authenticate(request(t.Context(), "Bearer good"))
		if err != nil || u.GetName() != "static" || b.requests.Load() != 0 {
			t.Errorf("got %v, %v after %d reviews; want static after none", u, err, b.requests.Load())
		}
	})
}

func TestCallerEnds(t *testing.T) {
	t.Run("O14: a caller who leaves is let go at once, and is neither 401 nor 503", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		b := &backend{answer: func(http.ResponseWriter, *http.Request) { close(arrived); <-release }}
		_, kubeconfig := startBackend(t, b)
		t.Cleanup(func() { close(release) })
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go authenticateInto(chain, request(ctx, "Bearer good"), failed)
		<-arrived
		cancel()
		if f := fault.As(<-failed); f == nil || f.Code != wire.CodeCanceled {
			t.Errorf("got %v, want canceled", f)
		}
	})
	t.Run("O14: closing ends the reviews under way with 503", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		b := &backend{answer: func(http.ResponseWriter, *http.Request) { close(arrived); <-release }}
		_, kubeconfig := startBackend(t, b)
		t.Cleanup(func() { close(release) })
		chain := startChain(t, Config{TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig}})
		failed := make(chan error)
		go authenticateInto(chain, request(t.Context(), "Bearer good"), failed)
		<-arrived
		chain.Close()
		if f := wantStatus(t, <-failed, http.StatusServiceUnavailable); !strings.Contains(f.Error(), "shutting down") {
			t.Errorf("got %v", f)
		}
	})
}

func authenticateInto(chain *Chain, r *http.Request, result chan<- error) {
	_, err := chain.Authenticate(r)
	result <- err
}
