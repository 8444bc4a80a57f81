package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/server"
)

// runHub runs a hub in dir until the test's end, and returns its address by name.
func runHub(t *testing.T, dir string) string {
	t.Helper()
	for name, text := range map[string]string{"tokens.csv": "tok-ada,ada,1\ntok-bob,bob,2\n", "ada.token": "tok-ada\n", "bob.token": "tok-bob"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hub, err := server.New(t.Context(), server.Config{
		State: filepath.Join(dir, "state"), TokenFile: filepath.Join(dir, "tokens.csv"), Listen: []string{"127.0.0.1:0"},
		Admins: &server.Admins{Users: []string{"ada"}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(hub.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("localhost", port)
}

func TestHubCommands(t *testing.T) {
	dir := t.TempDir()
	address := runHub(t, dir)
	ok := func(t *testing.T, args ...string) clitest.Result {
		t.Helper()
		got := clitest.Run(t, dir, append(args, "--state", "state")...)
		if got.Code != 0 {
			t.Fatalf("%v: %+v", args, got)
		}
		return got
	}
	t.Run("O6: token create prints one line to paste, and all else on standard error", func(t *testing.T) {
		got := ok(t, "token", "create", "--cluster", "edge-1", "--ttl", "15m", "--label", "region=north")
		line, found := strings.CutPrefix(got.Stdout, "culvert-agent join --token ")
		if !found || strings.Count(got.Stdout, "\n") != 1 {
			t.Fatalf("%q", got.Stdout)
		}
		token, err := enrol.DecodeToken(line)
		if err != nil || token.Cluster != "edge-1" || token.Hub != address || len(token.Pins) != 1 {
			t.Errorf("%+v, %v", token, err)
		}
		for _, part := range []string{"warning: ", "edge-1", "It is good once", "culvert token revoke " + token.ID} {
			if !strings.Contains(got.Stderr, part) {
				t.Errorf("standard error lacks %q: %s", part, got.Stderr)
			}
		}
		if strings.Contains(got.Stderr, token.Secret) {
			t.Error("the secret is on standard error")
		}
	})
	t.Run("O6: every result comes as a table, JSON or YAML", func(t *testing.T) {
		var made admin.NewToken
		if err := json.Unmarshal([]byte(ok(t, "token", "create", "--cluster", "edge-2", "--approval", "manual", "-o", "json").Stdout), &made); err != nil || made.Approval != admin.ApprovalManual || made.Text == "" {
			t.Errorf("%+v, %v", made, err)
		}
		var list admin.List[admin.Token]
		if err := yaml.Unmarshal([]byte(ok(t, "token", "list", "-o", "yaml").Stdout), &list); err != nil || len(list.Items) != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		table := ok(t, "token", "revoke", made.ID).Stdout
		if !regexp.MustCompile(`(?m)^ID +CLUSTER +STATE +APPROVAL +EXPIRES +BY +LABELS\n` + made.ID + ` +edge-2 +revoked +manual `).MatchString(table) {
			t.Errorf("%s", table)
		}
		if out := ok(t, "clusters", "list").Stdout; out != "NAME   STATE   AGENTS   KUBERNETES   VERSION   LAST SEEN   LABELS\n" {
			t.Errorf("%q", out)
		}
	})
	t.Run("O6,N7: clusters are revoked and shown", func(t *testing.T) {
		if out := ok(t, "clusters", "revoke", "edge-1", "--reason", "laptop stolen").Stdout; out != "cluster edge-1 is revoked, 0 tunnels were cut\n" {
			t.Errorf("%q", out)
		}
		out := ok(t, "clusters", "get", "edge-1").Stdout
		for _, part := range []string{"State:", "revoked", "Reason:", "laptop stolen", "by uid "} {
			if !strings.Contains(out, part) {
				t.Errorf("lacks %q: %s", part, out)
			}
		}
		if out := ok(t, "clusters", "restore", "edge-1").Stdout; !strings.Contains(out, "Restored:") || !strings.Contains(out, "away") {
			t.Errorf("%s", out)
		}
	})
	t.Run("O9: authorities are shown and rotated", func(t *testing.T) {
		before := ok(t, "pki", "show").Stdout
		if n := strings.Count(before, "signs"); n != 4 {
			t.Errorf("%d sign: %s", n, before)
		}
		got := ok(t, "pki", "rotate", "--role", "serving")
		if strings.Count(got.Stdout, "\nserving") != 2 || !strings.Contains(got.Stderr, "signs with a new key; 1 older are trusted") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("P16,P25: the CA of a hub whose fingerprint is known needs no trust before it", func(t *testing.T) {
		ca, err := os.ReadFile(filepath.Join(dir, "state", "pki", "serving-ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		var authorities admin.List[admin.Authority]
		if err := json.Unmarshal([]byte(ok(t, "pki", "show", "-o", "json").Stdout), &authorities); err != nil {
			t.Fatal(err)
		}
		for _, a := range authorities.Items {
			if a.Role != "serving" {
				continue
			}
			for _, fingerprint := range []string{a.Active.Fingerprint, a.Trusted[0].Fingerprint, strings.ToLower(strings.ReplaceAll(a.Active.Fingerprint, ":", ""))} {
				if got := clitest.Run(t, dir, "pki", "fetch", "--hub", address, "--fingerprint", fingerprint); got.Code != 0 || got.Stdout != string(ca) {
					t.Errorf("%s: %+v", fingerprint, got)
				}
			}
		}
		clitest.Refuses(t, dir, "culvert", []clitest.Failure{
			clitest.Fails("fingerprint of another hub", []string{"pki", "fetch", "--hub", address, "--fingerprint", strings.Repeat("ab", 32)}, "no CA that this hub hands out has that fingerprint"),
			clitest.Fails("hub that is none", []string{"pki", "fetch", "--hub", "127.0.0.1:1", "--fingerprint", strings.Repeat("ab", 32)}, "the hub at https://127.0.0.1:1 cannot be reached", "refused"),
		})
		block, _ := pem.Decode(ca)
		if block == nil || bytes.Contains(ca, []byte("PRIVATE")) {
			t.Error("that is no CA")
		}
	})
	t.Run("D22: an administrator whom the hub knows works from elsewhere", func(t *testing.T) {
		remote := []string{"token", "list", "--hub", "https://" + address, "--hub-ca", "state/pki/serving-ca.crt", "--token-file"}
		if got := clitest.Run(t, dir, append(remote, "ada.token")...); got.Code != 0 || !strings.Contains(got.Stdout, "edge-2") {
			t.Errorf("%+v", got)
		}
		clitest.Refuses(t, dir, "culvert", []clitest.Failure{
			clitest.Fails("caller who is no administrator", append(remote, "bob.token"), `"bob" is not an administrator of this hub`, "admins"),
			clitest.Fails("token that the hub does not know", append(remote, "tokens.csv"), "file with the token: ", "tokens.csv: want one token"),
			clitest.Fails("hub whose CA is not known", []string{"token", "list", "--hub", "https://" + address, "--token-file", "ada.token"}, "the hub at https://"+address+" cannot be verified", "certificate", "--hub-ca"),
		})
	})
	t.Run("O6: refusals of the hub are said as they are", func(t *testing.T) {
		with := func(args ...string) []string { return append(args, "--state", "state") }
		clitest.Refuses(t, dir, "culvert", []clitest.Failure{
			clitest.Fails("cluster's name", with("token", "create", "--cluster", "Edge.1"), "cluster: ", "lower-case letters"),
			clitest.Fails("time", with("token", "create", "--cluster", "e", "--ttl", "-1h"), "ttl: -1h0m0s is negative"),
			clitest.Fails("unknown token", with("token", "revoke", "x"), `no join token has the id "x"`, "culvert token list"),
			clitest.Fails("unknown cluster", with("clusters", "get", "none"), "no cluster of that name", "culvert clusters list"),
			clitest.Fails("nobody waits", with("clusters", "accept", "edge-1"), "waits to be accepted"),
			clitest.Fails("unknown role", with("pki", "rotate", "--role", "kings"), "want agents, serving, users or peers"),
		})
	})
}
