package oidc

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func jwt(expires time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, expires.Unix())) + ".c2ln"
}

// endpoint is a token endpoint that takes each refresh token once, as RFC 9700 wants it.
type endpoint struct {
	asked atomic.Int64
	// answer is the status and error code of the next answers; empty is success.
	answer atomic.Value
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := e.asked.Add(1)
	w.Header().Set("Content-Type", "application/json")
	if code, _ := e.answer.Load().(string); code != "" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":%q}`, code)
		return
	}
	if got := r.PostFormValue("refresh_token"); got != fmt.Sprintf("REFRESH-%d", n-1) || r.PostFormValue("client_id") != "cli" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	fmt.Fprintf(w, `{"access_token":"a","token_type":"bearer","refresh_token":"REFRESH-%d","id_token":%q}`, n, jwt(time.Now().Add(time.Hour)))
}

func TestSource(t *testing.T) {
	dir := t.TempDir()
	provider := &endpoint{}
	server := httptest.NewTLSServer(provider)
	defer server.Close()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := Config{Issuer: "https://issuer", ClientID: "cli", CA: ca}
	source := Source{Config: config, Path: filepath.Join(dir, "credentials", "p.login"), Hub: "https://hub", Again: "culvert login https://hub"}
	write := func(t *testing.T, lasts time.Duration, refresh string) {
		t.Helper()
		login, err := NewLogin("https://issuer", "cli", server.URL+"/token", jwt(time.Now().Add(lasts)), refresh)
		if err != nil {
			t.Fatal(err)
		}
		if err := login.Save(source.Path); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(t *testing.T, says string) {
		t.Helper()
		_, err := source.Fetch(t.Context())
		if !errors.As(err, new(*credential.Error)) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "REFRESH") {
			t.Errorf("%v, want %q", err, says)
		}
	}
	t.Run("nobody is logged in", func(t *testing.T) {
		fails(t, "you are not logged in at https://hub: run culvert login https://hub")
	})
	t.Run("many at once use a refresh token once", func(t *testing.T) {
		write(t, -time.Minute, "REFRESH-0")
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if _, err := source.Fetch(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := provider.asked.Load(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
		if info, err := os.Stat(source.Path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		login, err := load(source.Path)
		if err != nil || login.RefreshToken != "REFRESH-1" {
			t.Errorf("the next refresh token is not kept: %v", err)
		}
	})
	t.Run("one that is no longer taken is an expired login", func(t *testing.T) {
		write(t, -time.Minute, "REFRESH-0")
		fails(t, "your login at https://hub has expired: run culvert login https://hub")
	})
	t.Run("a provider in trouble is no expired login", func(t *testing.T) {
		provider.answer.Store("server_error")
		write(t, -time.Minute, "REFRESH-0")
		fails(t, `the provider https://issuer refuses ("server_error")`)
		// A token that is still good is used, though it is time for the next.
		write(t, 30*time.Second, "REFRESH-0")
		login, err := load(source.Path)
		if err != nil {
			t.Fatal(err)
		}
		login.Got = time.Now().Add(-time.Hour)
		if err := login.Save(source.Path); err != nil {
			t.Fatal(err)
		}
		before := provider.asked.Load()
		if _, err := source.Fetch(t.Context()); err != nil || provider.asked.Load() != before+1 {
			t.Errorf("%v, asked %d times", err, provider.asked.Load()-before)
		}
	})
	t.Run("without a refresh token a login ends with its token", func(t *testing.T) {
		write(t, time.Hour, "")
		if _, err := source.Fetch(t.Context()); err != nil {
			t.Error(err)
		}
		write(t, -time.Minute, "")
		fails(t, "has expired")
	})
	t.Run("a file that others may read, that is damaged or of another provider is no login", func(t *testing.T) {
		write(t, time.Hour, "")
		if err := os.Chmod(source.Path, 0o644); err != nil { // what is refused
			t.Fatal(err)
		}
		fails(t, "want a file of mode 0600")
		if err := errors.Join(os.Remove(source.Path), os.WriteFile(source.Path, []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
		fails(t, "damaged")
		write(t, time.Hour, "")
		other := source
		other.Config.Issuer = "https://elsewhere"
		if _, err := other.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "not logged in") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a login is shown to nobody by accident", func(t *testing.T) {
		l := Login{IDToken: "SECRET", RefreshToken: "SECRET"}
		if text := fmt.Sprintf("%v %+v %#v %s", l, l, l, l); strings.Contains(text, "SECRET") {
			t.Error(text)
		}
	})
}
