package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clone is a git repository with one commit.
func clone(t *testing.T) (dir string, git func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	git = func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet")
	write(t, filepath.Join(dir, "file"), "x")
	git("add", ".")
	git("commit", "--quiet", "-m", "x")
	return dir, git
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func none(string) string { return "" }

func TestSource(t *testing.T) {
	dir, git := clone(t)
	revision := git("rev-parse", "HEAD")
	expect := func(want string) {
		t.Helper()
		s, err := readSource(t.Context(), dir, none)
		if err != nil {
			t.Fatal(err)
		}
		if s.version != want || s.revision != revision || s.time.Format("2006-01-02T15:04:05Z07:00") != "2026-01-02T03:04:05Z" {
			t.Errorf("version %s of %s at %v, want %s of %s", s.version, s.revision, s.time, want, revision)
		}
	}
	pseudo := "v0.0.0-20260102030405-" + revision[:12]
	expect(pseudo)
	write(t, filepath.Join(dir, "new"), "y")
	expect(pseudo + "+dirty")
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	git("tag", "v1.2.3")
	git("tag", "v1.10.0")
	git("tag", "nightly")
	expect("v1.10.0")
	if tag := (source{version: pseudo + "+dirty"}).tag(); tag != pseudo+"-dirty" {
		t.Errorf("tag %s", tag)
	}
}

func TestSourceOfEnvironment(t *testing.T) {
	given := map[string]string{
		"VERSION": "v1.2.3-rc.1", "REVISION": strings.Repeat("ab", 20), "SOURCE_DATE_EPOCH": "1700000000",
	}
	with := func(key, value string) func(string) string {
		return func(name string) string {
			if name == key {
				return value
			}
			return given[name]
		}
	}
	nowhere := t.TempDir()
	if s, err := readSource(t.Context(), nowhere, with("", "")); err != nil || s.version != "v1.2.3-rc.1" || s.time.Unix() != 1700000000 {
		t.Errorf("without git: %+v, %v", s, err)
	}
	for _, c := range []struct{ key, value, says string }{
		{"VERSION", "", "VERSION: not set, and git"},
		{"REVISION", "", "REVISION: not set, and git"},
		{"SOURCE_DATE_EPOCH", "", "SOURCE_DATE_EPOCH: not set, and git"},
		{"VERSION", "1.2.3", `VERSION: "1.2.3" is not of the form v1.2.3`},
		{"VERSION", "v1.2.3/../x", "VERSION:"},
		{"REVISION", "HEAD", `REVISION: "HEAD" is no commit id`},
		{"SOURCE_DATE_EPOCH", "yesterday", "SOURCE_DATE_EPOCH:"},
		{"SOURCE_DATE_EPOCH", "-1", "SOURCE_DATE_EPOCH:"},
	} {
		// A folder above the temporary one must not be taken for the clone.
		t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(nowhere))
		if _, err := readSource(t.Context(), nowhere, with(c.key, c.value)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.value, err, c.says)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "want a command"},
		{[]string{"image"}, "want a command"},
		{[]string{"images"}, "--out: required"},
		{[]string{"images", "--out", "x", "y"}, "--out: required, and no arguments"},
		{[]string{"images", "--out", "x", "--platform", "windows/amd64"}, `"windows/amd64" is not one of linux/amd64, linux/arm64`},
		{[]string{"archives", "--out", "x", "--platform", "plan9/amd64"}, `"plan9/amd64" is not one of`},
	} {
		if err := run(t.Context(), c.args, os.Stdout); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.args, err, c.says)
		}
	}
}
