package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// asProcess in the environment makes the test binary one that wants a token, with the
// program in it as its source.
const asProcess = "CULVERT_TEST_CREDENTIAL"

func TestMain(m *testing.M) {
	if line := os.Getenv(asProcess); line != "" {
		cache := Cache{Dir: os.Getenv(asProcess + "_DIR"), Scope: "https://hub"}
		token, err := cache.Token(context.Background(), Command{Line: line, Stderr: os.Stderr})
		if err == nil {
			_, err = fmt.Println(token.Value)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// jwt is a token that says when it ends, signed by nobody.
func jwt(expires time.Time) string {
	payload := fmt.Sprintf(`{"exp":%d}`, expires.Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// counted is a source that counts.
type counted struct {
	key     string
	fetched atomic.Int64
	lasts   time.Duration
	fail    error
}

func (c *counted) Key() string { return c.key }

func (c *counted) Fetch(context.Context) (Token, error) {
	n := c.fetched.Add(1)
	if c.fail != nil {
		return Token{}, c.fail
	}
	now := time.Now()
	token := Token{Value: fmt.Sprintf("token-%d", n), Got: now}
	if c.lasts != 0 {
		token.Expires = now.Add(c.lasts)
	}
	return token, nil
}

func TestTogether(t *testing.T) {
	t.Run("fifty goroutines get one token together", func(t *testing.T) {
		cache, source := Cache{Dir: t.TempDir(), Scope: "https://hub"}, &counted{key: "k", lasts: time.Hour}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if token, err := cache.Token(t.Context(), source); err != nil || token.Value != "token-1" {
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
		if n := source.fetched.Load(); n != 1 {
			t.Errorf("%d refreshes", n)
		}
	})
	t.Run("fifty processes get one token together", func(t *testing.T) {
		dir := t.TempDir()
		calls := filepath.Join(dir, "calls")
		line := "echo called >> " + calls + "; echo " + jwt(time.Now().Add(time.Hour))
		var all sync.WaitGroup
		outputs := make([]string, 50)
		for i := range outputs {
			all.Go(func() {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), asProcess+"="+line, asProcess+"_DIR="+filepath.Join(dir, "cache"), "GORACE=atexit_sleep_ms=0")
				out, err := cmd.Output()
				if err != nil {
					t.Errorf("%v", err)
				}
				outputs[i] = string(out)
			})
		}
		all.Wait()
		text, err := os.ReadFile(calls)
		if err != nil || strings.Count(string(text), "called") != 1 {
			t.Errorf("%v: the source was asked %d times", err, strings.Count(string(text), "called"))
		}
		for _, out := range outputs {
			if out != outputs[0] || !strings.HasPrefix(out, "e30.") {
				t.Errorf("%q", out)
			}
		}
	})
}

func TestExpiry(t *testing.T) {
	for _, tt := range []struct {
		name              string
		lasts, kept, life time.Duration
	}{
		{"an hour", time.Hour, 55 * time.Minute, 0},
		{"a minute", time.Minute, 48 * time.Second, 0},
		{"half a minute", 30 * time.Second, 20 * time.Second, 0},
		{"nobody knows", 0, time.Minute, 0},
	} {
		t.Run("a token is renewed in time: "+tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				cache, source := Cache{Dir: dir, Scope: "s"}, &counted{key: "k", lasts: tt.lasts}
				get := func(want string) {
					t.Helper()
					if token, err := cache.Token(t.Context(), source); err != nil || token.Value != want {
						t.Errorf("got %q %v, want %q", token.Value, err, want)
					}
				}
				get("token-1")
				time.Sleep(tt.kept - time.Second)
				get("token-1")
				time.Sleep(2 * time.Second)
				get("token-2")
			})
		})
	}
	if got := expiry(jwt(time.Unix(2e9, 0))); !got.Equal(time.Unix(2e9, 0)) {
		t.Errorf("%v", got)
	}
	for _, text := range []string{"", "a", "a.b.c", "a.e30.c", "..", "a." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1e300}`)) + ".c"} {
		if got := expiry(text); !got.IsZero() {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestCache(t *testing.T) {
	cache := Cache{Dir: filepath.Join(t.TempDir(), "c"), Scope: "https://hub"}
	source := &counted{key: "k", lasts: time.Hour}
	get := func(t *testing.T, c Cache, s Source) string {
		t.Helper()
		token, err := c.Token(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return token.Value
	}
	first := get(t, cache, source)
	t.Run("files are the owner's alone, and named after nothing", func(t *testing.T) {
		entries, err := os.ReadDir(cache.Dir)
		if err != nil || len(entries) != 2 {
			t.Fatalf("%v %v", entries, err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 || strings.Contains(e.Name(), "hub") {
				t.Errorf("%v %v", info, err)
			}
		}
		if info, err := os.Stat(cache.Dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", info, err)
		}
	})
	t.Run("another hub and another source have other tokens", func(t *testing.T) {
		if get(t, Cache{Dir: cache.Dir, Scope: "https://other"}, source) == first || get(t, cache, &counted{key: "k2", lasts: time.Hour}) != "token-1" {
			t.Error("tokens are shared")
		}
	})
	t.Run("a token that was refused is forgotten, unless somebody got another meanwhile", func(t *testing.T) {
		other := Cache{Dir: cache.Dir, Scope: "https://refused"}
		source := &counted{key: "k", lasts: time.Hour}
		old := get(t, other, source)
		other.Refused(source, Token{Value: old})
		next := get(t, other, source)
		other.Refused(source, Token{Value: old})
		if next == old || get(t, other, source) != next {
			t.Errorf("after %s there is %s, and then another", old, next)
		}
	})
	path := cache.path("k")
	t.Run("a file that others may write, or that is damaged, is not believed", func(t *testing.T) {
		planted, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // what is refused
			t.Fatal(err)
		}
		if got := get(t, cache, source); got == first {
			t.Error("a file that everybody may write is believed")
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		for _, bad := range []string{"", "{", `{"format":2,"token":"x"}`, string(planted[:len(planted)/2])} {
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			before := source.fetched.Load()
			if get(t, cache, source); source.fetched.Load() != before+1 {
				t.Errorf("%q is believed", bad)
			}
		}
	})
	t.Run("a failure is told and not kept", func(t *testing.T) {
		bad := &counted{key: "bad", fail: errors.New("log in first")}
		for range 2 {
			if _, err := cache.Token(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "log in first") {
				t.Errorf("%v", err)
			}
		}
		if _, err := cache.Token(t.Context(), &counted{key: "old", lasts: -time.Hour}); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a token is shown to nobody by accident", func(t *testing.T) {
		if text := fmt.Sprint(Token{Value: "secret"}) + fmt.Sprintf("%v %+v %s", Token{Value: "secret"}, Token{Value: "secret"}, Token{Value: "secret"}); strings.Contains(text, "secret") {
			t.Error(text)
		}
	})
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for text, want := range map[string]string{"abc\n": "abc", "abc": "abc", "": "", "a b": "", "a\nb": "", "\x00": "", strings.Repeat("a", maxToken+1): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if token, err := (File{path}).Fetch(t.Context()); token.Value != want || (err == nil) != (want != "") {
			t.Errorf("%.9q: %q %v", text, token.Value, err)
		}
	}
	for line, want := range map[string]string{"echo abc": "abc", "echo abc; exit 1": "", "true": "", "head -c 70000 /dev/zero | tr '\\0' a": ""} {
		if token, err := (Command{Line: line}).Fetch(t.Context()); token.Value != want || (err == nil) != (want != "") {
			t.Errorf("%q: %.9q %v", line, token.Value, err)
		}
	}
}

func FuzzExpiry(f *testing.F) {
	f.Add(jwt(time.Unix(1, 0)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		if at := expiry(text); !at.IsZero() && at.Unix() <= 0 && at.Unix() != 0 {
			t.Errorf("%v", at)
		}
		if token, err := ParseToken([]byte(text), time.Now()); err == nil && (token.Value == "" || strings.ContainsAny(token.Value, " \n")) {
			t.Errorf("%q", text)
		}
	})
}
