package identity

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rewrite puts content at path by a rename, and lets a lookup come after the
// interval in which the file is not looked at.
func rewrite(t *testing.T, chain *Chain, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	chain.static.next.Store(0)
}

func TestTokenFileReload(t *testing.T) {
	path := writeTokenFile(t, "first,alice,1\n")
	var logs lockedBuffer
	chain, err := New(t.Context(), Config{TokenFile: path}, slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	is := func(t *testing.T, token, want string) {
		t.Helper()
		u, err := chain.Authenticate(request(t.Context(), "Bearer "+token))
		if want == "" {
			wantStatus(t, err, http.StatusUnauthorized)
			return
		}
		if err != nil || u.GetName() != want {
			t.Errorf("%s: %v, %v, want %s", token, u, err, want)
		}
	}
	t.Run("D22: a changed token file is in force without a restart", func(t *testing.T) {
		is(t, "first", "alice")
		rewrite(t, chain, path, "second,bob,2\n")
		is(t, "second", "bob")
		is(t, "first", "")
	})
	t.Run("D22: a bad new token file keeps the old one, is reported once and counted", func(t *testing.T) {
		for range 3 {
			rewrite(t, chain, path, "s3cr3t,carol\n")
			is(t, "second", "bob")
			is(t, "s3cr3t", "")
		}
		err := chain.Reload()
		if err == nil || !strings.Contains(err.Error(), "line 1: has 2 columns") {
			t.Errorf("Reload: %v", err)
		}
		health := chain.Health()
		if len(health) != 1 || health[0].Failures != 1 || !strings.Contains(health[0].LastError, "line 1: has 2 columns") || health[0].File != path {
			t.Errorf("health %+v", health)
		}
		if s := logs.String(); strings.Count(s, "cannot be used") != 1 || strings.Contains(s, "s3cr3t") {
			t.Errorf("log: %s", s)
		}
	})
	t.Run("D22: a mended token file is taken, and the report is over", func(t *testing.T) {
		rewrite(t, chain, path, "third,dave,3\n")
		if err := chain.Reload(); err != nil {
			t.Error(err)
		}
		is(t, "third", "dave")
		if health := chain.Health(); health[0].LastError != "" || health[0].Failures != 1 {
			t.Errorf("health %+v", health)
		}
	})
	t.Run("D22: a token file that is gone keeps the old one", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := chain.Reload(); err == nil {
			t.Error("no error")
		}
		is(t, "third", "dave")
	})
	t.Run("D22: a swap of the symbolic link above the file is seen", func(t *testing.T) {
		dir := t.TempDir()
		for name, content := range map[string]string{"one": "a,alice,1\n", "two": "b,bob,2\n"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, "tokens.csv"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, name, "tokens.csv"), old, old); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(dir, "data")
		if err := os.Symlink("one", link); err != nil {
			t.Fatal(err)
		}
		chain := startChain(t, Config{TokenFile: filepath.Join(link, "tokens.csv")})
		if err := os.Symlink("two", link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		chain.static.next.Store(0)
		if u, err := chain.Authenticate(request(t.Context(), "Bearer b")); err != nil || u.GetName() != "bob" {
			t.Errorf("%v, %v", u, err)
		}
	})
	if err := (&Chain{}).Reload(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}
