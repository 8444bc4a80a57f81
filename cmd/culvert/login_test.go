package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/pki"
)

func TestLogin(t *testing.T) {
	dir := t.TempDir()
	address := runHub(t, dir)
	hub := "https://" + address
	ok := func(t *testing.T, args ...string) clitest.Result {
		t.Helper()
		got := clitest.Run(t, dir, args...)
		if got.Code != 0 {
			t.Fatalf("%q: %+v", args, got)
		}
		return got
	}
	ca, err := pki.LoadBundle(filepath.Join(dir, "state", "pki", "serving-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := pki.Fingerprint(ca.Certificates()[0])
	t.Run("P16,P25: an unknown CA is shown and not trusted where nobody can be asked", func(t *testing.T) {
		got := clitest.Run(t, dir, "login", hub, "--token-file", "ada.token")
		if got.Code != 4 || !strings.Contains(got.Stderr, fingerprint) || !strings.Contains(got.Stderr, "--hub-ca-fingerprint") || strings.Count(got.Stderr, "\n") != 1 {
			t.Errorf("%+v", got)
		}
		got = clitest.Run(t, dir, "login", hub, "--token-file", "ada.token", "--hub-ca-fingerprint", strings.Repeat("ab", 32))
		if got.Code != 4 || !strings.Contains(got.Stderr, "another hub") {
			t.Errorf("%+v", got)
		}
		if got := clitest.Run(t, dir, "profiles", "list", "-o", "json"); strings.Contains(got.Stdout, hub) {
			t.Errorf("a hub that is not trusted is kept: %s", got.Stdout)
		}
	})
	t.Run("a hub that does not take the token is not kept", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "bad.token"), []byte("nobody"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := clitest.Run(t, dir, "login", hub, "--token-file", "bad.token", "--hub-ca-fingerprint", fingerprint)
		if got.Code != 5 || strings.Contains(got.Stderr, "nobody") {
			t.Errorf("%+v", got)
		}
		if got := clitest.Run(t, dir, "whoami"); got.Code != 5 || !strings.Contains(got.Stderr, "culvert login https://HUB") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("after a login no command needs a flag for the hub or for who you are", func(t *testing.T) {
		if got := ok(t, "login", hub, "--token-file", "ada.token", "--hub-ca-fingerprint", fingerprint); got.Stdout != "You are ada at "+hub+". The profile localhost is the current one.\n" {
			t.Errorf("%+v", got)
		}
		var user client.User
		if err := json.Unmarshal([]byte(ok(t, "whoami", "-o", "json").Stdout), &user); err != nil || user.Name != "ada" || user.Method != "static-token" {
			t.Errorf("%+v %v", user, err)
		}
		for _, args := range [][]string{{"clusters", "list"}, {"clusters", "list", "--admin"}, {"clusters", "list", "-o", "wide"}, {"token", "list"}, {"pki", "show"}, {"profiles", "show"}} {
			ok(t, args...)
		}
		if got := ok(t, "credential"); !strings.Contains(got.Stdout, `"tok-ada"`) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a flag wins over the profile, and the environment too", func(t *testing.T) {
		if got := ok(t, "whoami", "--token-file", "bob.token"); !strings.Contains(got.Stdout, "bob") {
			t.Errorf("%+v", got)
		}
		cmd := clitest.Command(t.Context(), dir, "whoami")
		cmd.Env = append(cmd.Env, "CULVERT_HUB="+hub, "CULVERT_HUB_CA=state/pki/serving-ca.crt", "CULVERT_TOKEN=tok-bob")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "bob") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("a credential of one hub is not sent to another", func(t *testing.T) {
		got := clitest.Run(t, dir, "whoami", "--hub", "https://127.0.0.1:1")
		if got.Code != 5 || !strings.Contains(got.Stderr, "no credential for https://127.0.0.1:1") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a token on standard input is kept as its owner's alone", func(t *testing.T) {
		cmd := clitest.Command(t.Context(), dir, "login", hub, "--profile", "work", "--hub-ca", "state/pki/serving-ca.crt", "--token-stdin")
		cmd.Stdin = strings.NewReader("tok-bob\n")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "You are bob") {
			t.Fatalf("%v %s", err, out)
		}
		config := filepath.Join(dir, ".config", "culvert")
		if info, err := os.Stat(filepath.Join(config, "credentials", "work.token")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		text, err := os.ReadFile(filepath.Join(config, "config.yaml"))
		if err != nil || strings.Contains(string(text), "tok-") {
			t.Errorf("%v %s", err, text)
		}
		if got := ok(t, "profiles", "list"); !strings.Contains(got.Stdout, "*         work") {
			t.Errorf("%s", got.Stdout)
		}
		ok(t, "profiles", "use", "localhost")
		if got := ok(t, "whoami", "--profile", "work"); !strings.Contains(got.Stdout, "bob") {
			t.Errorf("%s", got.Stdout)
		}
	})
	t.Run("a login is repeated without its flags, and forgotten", func(t *testing.T) {
		ok(t, "login", hub, "--profile", "work")
		ok(t, "login", hub, "--profile", "work", "--token-file", "bob.token")
		if _, err := os.Stat(filepath.Join(dir, ".config", "culvert", "credentials", "work.token")); !os.IsNotExist(err) {
			t.Errorf("the token that was kept is there, though another one counts: %v", err)
		}
		ok(t, "logout", "--profile", "work")
		if got := clitest.Run(t, dir, "whoami", "--profile", "work"); got.Code != 5 || !strings.Contains(got.Stderr, "run culvert login "+hub+" --profile work") {
			t.Errorf("%+v", got)
		}
		if _, err := os.Stat(filepath.Join(dir, "bob.token")); err != nil {
			t.Errorf("a file of the user's was deleted: %v", err)
		}
		ok(t, "profiles", "delete", "work")
		if got := clitest.Run(t, dir, "profiles", "delete", "work"); got.Code != 7 {
			t.Errorf("%+v", got)
		}
	})
	clitest.Refuses(t, dir, "culvert", []clitest.Failure{
		{Name: "login in clear text", Args: []string{"login", "http://x"}, Code: 2, Says: []string{"want https://"}},
		{Name: "login of nobody", Args: []string{"login", hub, "--profile", "new", "--hub-ca", "state/pki/serving-ca.crt"}, Code: 2, Says: []string{"--token-file, --token-command, --token-stdin, --client-cert, --oidc-issuer: say who you are"}},
		{Name: "login twice", Args: []string{"login", hub, "--token-stdin", "--token-file", "a"}, Code: 2, Says: []string{"give one of them"}},
		{Name: "half a provider", Args: []string{"login", hub, "--oidc-issuer", "https://x"}, Code: 2, Says: []string{"each is of no use without the other"}},
		{Name: "name", Args: []string{"login", hub, "--profile", "../x", "--token-file", "ada.token"}, Code: 2, Says: []string{"--profile: name"}},
		{Name: "profile and hub", Args: []string{"whoami", "--profile", "a", "--hub", hub}, Code: 2, Says: []string{"--profile: leave it out with --hub"}},
		{Name: "no such profile", Args: []string{"whoami", "--profile", "none"}, Code: 7, Says: []string{`"none"`, "culvert profiles list"}},
		{Name: "no such flag", Args: []string{"whoami", "--nonsense"}, Code: 2, Says: []string{"see culvert whoami --help"}},
		{Name: "no such command", Args: []string{"nonsense"}, Code: 2, Says: []string{"see culvert --help"}},
	})
}

// TestPlugin is about what kubectl runs.
func TestPlugin(t *testing.T) {
	for path, want := range map[string]invocation{
		"culvert": {name: "culvert"}, "/usr/bin/culvert": {name: "culvert"}, "kubectl-culvert": {name: "kubectl culvert"},
		"/x/kubectl-culvert.exe": {name: "kubectl culvert"}, "/x/kubectl_complete-culvert": {name: "kubectl culvert", completes: true},
	} {
		if got := calledAs(path); got != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
