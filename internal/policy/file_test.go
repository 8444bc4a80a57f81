package policy_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/policy"
)

const (
	closed = head + "default: deny\n"
	open   = head + "rules:\n- {name: open, effect: allow, services: [{namespace: '*', name: '*'}]}\n"
	wrong  = head + "rules:\n- {name: open, effect: alow, services: [{namespace: '*', name: '*'}]}\n"
)

// put replaces a file as an editor or a kubelet does.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func allows(t *testing.T, f *policy.File) bool {
	t.Helper()
	d, err := f.Authorize(t.Context(), service("a", "b", "1", "http", 0)(t))
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

func TestFile(t *testing.T) {
	setup := func(t *testing.T, text string) (string, *policy.File, *bytes.Buffer) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "policy.yaml")
		put(t, path, text)
		var log bytes.Buffer
		f, err := policy.Open(path, policy.Options{}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return path, f, &log
	}
	t.Run("K8: a changed file is in force within a second, without a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path, f, log := setup(t, closed)
			put(t, path, open)
			if allows(t, f) {
				t.Error("the file was looked at twice within a second")
			}
			time.Sleep(time.Second)
			if !allows(t, f) {
				t.Error("the new policy is not in force")
			}
			if !strings.Contains(log.String(), "reloaded from files") {
				t.Error(log.String())
			}
		})
	})
	t.Run("K8: a bad file leaves the policy before in force, and is told once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path, f, log := setup(t, open)
			put(t, path, wrong)
			for range 3 {
				time.Sleep(time.Second)
				if !allows(t, f) {
					t.Error("the bad file is in force")
				}
			}
			s := f.Status()
			if s.Failures != 1 || !strings.Contains(s.Err, `rules[0].effect: "alow"`) || s.Rules != 1 || s.File != path {
				t.Errorf("%+v", s)
			}
			if n := strings.Count(log.String(), "cannot be used"); n != 1 {
				t.Errorf("told %d times: %s", n, log)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if s := f.Status(); !allows(t, f) || s.Failures != 2 || !strings.Contains(s.Err, "no such file") {
				t.Errorf("%+v", s)
			}
			put(t, path, closed)
			time.Sleep(time.Second)
			if s := f.Status(); allows(t, f) || s.Err != "" || s.Default != policy.DefaultDeny || s.Rules != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("K8: Reload reads at once and says what is wrong", func(t *testing.T) {
		path, f, _ := setup(t, closed)
		before := f.Status()
		put(t, path, open)
		if err := f.Reload(); err != nil || !allows(t, f) {
			t.Error(err)
		}
		if after := f.Status(); after.Digest == before.Digest || after.Read.Before(before.Read) {
			t.Errorf("%+v, before %+v", after, before)
		}
		put(t, path, wrong)
		if err := f.Reload(); err == nil || !strings.Contains(err.Error(), "line 4: rules[0].effect") || !strings.Contains(err.Error(), path) {
			t.Error(err)
		}
		put(t, path, strings.Repeat("#", 2<<20))
		if err := f.Reload(); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Error(err)
		}
	})
	t.Run("a hub does not start with a bad policy, or with none", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if _, err := policy.Open(path, policy.Options{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), path) {
			t.Error(err)
		}
		put(t, path, wrong)
		if _, err := policy.Open(path, policy.Options{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "rules[0].effect") {
			t.Error(err)
		}
	})
	t.Run("a policy that others can write is told", func(t *testing.T) {
		path, f, log := setup(t, closed)
		put(t, path, open)
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := f.Reload(); err != nil || !strings.Contains(log.String(), "mode=0666") {
			t.Error(err, log)
		}
	})
	t.Run("decisions and reloads at the same time", func(t *testing.T) {
		path, f, _ := setup(t, open)
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() { decideOften(t, f) })
		}
		for i := range 50 {
			put(t, path, []string{open, closed, wrong}[i%3])
			_ = f.Reload() // one in three is bad
		}
		running.Wait()
	})
}

// decideOften ends by itself.
func decideOften(t *testing.T, f *policy.File) {
	t.Helper()
	for range 2000 {
		allows(t, f)
		f.Status()
	}
}

// failing cannot decide.
type failing struct{ err error }

func (f failing) Authorize(context.Context, policy.Request) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, f.err
}
