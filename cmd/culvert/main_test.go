package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func TestHelp(t *testing.T) {
	for _, c := range []struct {
		args []string
		says []string
	}{
		{nil, []string{"Usage:", "dev", "token", "clusters", "forward", "connect", "socks", "ping", "verify", "bench", "pki", "manifests", "endpoints", "version"}},
		{[]string{"--help"}, []string{"Usage:", "dev", "pki", "version"}},
		{[]string{"help", "dev"}, []string{"MUST NOT be used in production", "--upstream", "--cluster", "--listen", "--state", "--allow-service", "Examples:"}},
		{[]string{"dev", "--help"}, []string{"MUST NOT be used in production", "--upstream"}},
		{[]string{"pki"}, []string{"init", "agent", "fetch", "show", "rotate"}},
		{[]string{"token"}, []string{"create", "list", "revoke"}},
		{[]string{"clusters"}, []string{"list", "get", "accept", "revoke"}},
		{[]string{"token", "create", "--help"}, []string{"Examples:", "--ttl", "--label", "--approval", "good for one", "ssh edge-1"}},
		{[]string{"clusters", "revoke", "--help"}, []string{"Examples:", "--reason", "cut its tunnels now"}},
		{[]string{"pki", "rotate", "--help"}, []string{"Examples:", "--role", "stays trusted"}},
		{[]string{"pki", "init", "--help"}, []string{"--state string", "(required)", "culvert pki init --state"}},
		{[]string{"pki", "agent", "--help"}, []string{"--cluster", "--out", "--trust-domain", "--lifetime", "tls.crt, tls.key and ca.crt"}},
	} {
		got := clitest.Run(t, t.TempDir(), c.args...)
		if got.Code != 0 || got.Stderr != "" {
			t.Errorf("%v: exit code %d, %s", c.args, got.Code, got.Stderr)
		}
		for _, part := range c.says {
			if !strings.Contains(got.Stdout, part) {
				t.Errorf("%v: help lacks %q: %s", c.args, part, got.Stdout)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	got := clitest.Run(t, t.TempDir(), "version")
	if got.Code != 0 || !strings.HasPrefix(got.Stdout, "culvert ") || !strings.Contains(got.Stdout, "tunnel protocol revisions 1 to 1\n") {
		t.Errorf("%+v", got)
	}
}

func TestVersionForms(t *testing.T) {
	var v versionResult
	got := clitest.Run(t, t.TempDir(), "version", "-o", "json")
	if err := json.Unmarshal([]byte(got.Stdout), &v); err != nil || v.Version == "" || v.OldestRevision != 1 || v.Revision != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

// TestInterrupted ends commands that wait for their input.
func TestInterrupted(t *testing.T) {
	for _, args := range [][]string{
		{"policy", "import-ocm", "-"}, {"manifests", "hub", "--values", "-"},
	} {
		cmd := clitest.Command(t.Context(), t.TempDir(), args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// More than a pipe holds: once it is written, somebody reads.
		if _, err := in.Write(bytes.Repeat([]byte("#\n"), 128<<10)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		// Wait closes the input, and the process must have ended before that.
		state, err := cmd.Process.Wait()
		if err != nil || state.ExitCode() != 130 {
			t.Errorf("%v: %v %v", args, state, err)
		}
		_ = cmd.Wait() // for its output; the process was waited for
		if stderr.String() != "culvert: interrupted\n" {
			t.Errorf("%v: %q", args, &stderr)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	clitest.Run(t, dir, "pki", "init", "--state", "s")
	clitest.Refuses(t, dir, "culvert", []clitest.Failure{
		clitest.Fails("agent of no hub", []string{"pki", "agent", "--state", "mistyped", "--cluster", "edge-1", "--out", "o"}, "--state: no CA of a hub", "mistyped/pki/agents-ca.crt", "culvert pki init"),
		clitest.Fails("unknown command", []string{"frob"}, `"frob"`, "see culvert --help"),
		clitest.Fails("unknown inner command", []string{"pki", "frob"}, `"frob"`, "see culvert pki --help"),
		clitest.Fails("argument too many", []string{"whoami", "x"}, `unknown argument "x": none is wanted: see culvert whoami --help`),
		clitest.Fails("help about no command", []string{"help", "clusters", "frob"}, `no command is called "clusters frob": see culvert help --help`),
		clitest.Fails("target that has no colon", []string{"forward", "edge-1", "5432[::1]:22"}, `forward "5432[::1]:22": address: `),
		clitest.Fails("no connections", []string{"forward", "edge-1", "1:db:2", "--max-connections", "0"}, "--max-connections: 0: want 1 or more"),
		clitest.Fails("no connections of a proxy", []string{"socks", "--max-connections", "-1"}, "--max-connections: -1: want 1 or more"),
		clitest.Fails("proxy at no address", []string{"socks", "--listen", "1080"}, `--listen: "1080": want an address of this machine, host:port`),
		clitest.Fails("login with half a fingerprint", []string{"login", "https://x", "--hub-ca-fingerprint", "AB"}, "--hub-ca-fingerprint: want the SHA-256"),
		clitest.Fails("fetch of no hub", []string{"pki", "fetch", "--hub", "http://x", "--fingerprint", strings.Repeat("ab", 32)}, "--hub: want https://host[:port]"),
		clitest.Fails("cluster of no request", []string{"credential", "--cluster", "edge-1", "--token-file", "file"}, "--cluster: is for --token-request"),
		clitest.Fails("audience of no account", []string{"credential", "--audience", "x", "--token-file", "file"}, "--audience: are for --service-account"),
		clitest.Fails("unknown flag", []string{"dev", "--frob"}, "--frob", "see culvert dev --help"),
		clitest.Fails("token for no cluster", []string{"token", "create", "--state", "s"}, "--cluster: required"),
		clitest.Fails("token of no hub", []string{"token", "create", "--cluster", "edge-1"}, "culvert login https://HUB", "or give --state"),
		clitest.Fails("hub that does not run", []string{"token", "create", "--cluster", "edge-1", "--state", "s"}, "no hub runs with the state folder s", "s/admin.sock", "start it with culvert-hub --state s", "or give --hub"),
		clitest.Fails("two hubs", []string{"clusters", "list", "--state", "s", "--hub", "https://x"}, "--state: leave it out with --hub"),
		clitest.Fails("hub without a token", []string{"clusters", "list", "--hub", "https://x"}, "no credential for https://x: give --token-file", "CULVERT_TOKEN"),
		clitest.Fails("token file without a hub", []string{"clusters", "list", "--token-file", "file"}, "no hub is named: run culvert login"),
		clitest.Fails("token file that is not there", []string{"clusters", "list", "--hub", "https://x", "--admin", "--token-file", "no"}, "file with the token", "no such file"),
		clitest.Fails("hub in clear text", []string{"clusters", "list", "--hub", "http://x", "--token-file", "file"}, "--hub: want https://host[:port]"),
		clitest.Fails("hub's CA that is none", []string{"clusters", "list", "--admin", "--hub", "https://x", "--token-file", "file", "--hub-ca", "file"}, "--hub-ca", "no PEM block"),
		clitest.Fails("form of the result", []string{"token", "list", "--state", "s", "-o", "xml"}, `--output: "xml" is not table, wide, json or yaml`),
		clitest.Fails("revoke of nothing", []string{"clusters", "revoke", "--state", "s"}, "want one argument, the cluster's name", "see culvert clusters revoke --help"),
		clitest.Fails("rotation of no role", []string{"pki", "rotate", "--state", "s"}, "--role: required"),
		clitest.Fails("fetch without a fingerprint", []string{"pki", "fetch", "--hub", "x:1"}, "--fingerprint: required"),
		clitest.Fails("fetch with half a fingerprint", []string{"pki", "fetch", "--hub", "x:1", "--fingerprint", "AB:CD"}, "--fingerprint: want", "SHA-256"),
		clitest.Fails("init without a folder", []string{"pki", "init"}, "--state: required: the hub's state folder"),
		clitest.Fails("init with an empty folder name", []string{"pki", "init", "--state", ""}, "--state: required"),
		clitest.Fails("init into a file", []string{"pki", "init", "--state", "file"}, "agents CA", "file", "not a directory"),
		clitest.Fails("agent without anything", []string{"pki", "agent"}, "--state: required", "--cluster: required", "--out: required"),
		clitest.Fails("agent of a bad cluster", []string{"pki", "agent", "--state", "s", "--cluster", "Edge.1", "--out", "o"}, "cluster: ", "lower-case letters"),
		clitest.Fails("agent of a bad trust domain", []string{"pki", "agent", "--state", "s", "--cluster", "edge-1", "--out", "o", "--trust-domain", "x/y"}, "trust domain", "want labels"),
		clitest.Fails("agent for no time", []string{"pki", "agent", "--state", "s", "--cluster", "edge-1", "--out", "o", "--lifetime", "-1h"}, "lifetime", "at least 1s"),
		clitest.Fails("agent into a file", []string{"pki", "agent", "--state", "s", "--cluster", "edge-1", "--out", "file"}, "file", "not a directory"),
		clitest.Fails("dev with a damaged token", []string{"dev", "--state", ".", "--listen", "x"}, "listen[0]: want host:port"),
	})
	if _, err := os.Stat(filepath.Join(dir, "o")); err == nil {
		t.Error("a refused certificate left its folder")
	}
}

func TestPKI(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := clitest.Run(t, dir, "pki", "init", "--state", "hub")
	if want := "hub/pki/agents-ca.crt\nhub/pki/peers-ca.crt\nhub/pki/users-ca.crt\nhub/pki/serving-ca.crt\n"; first.Code != 0 || first.Stdout != want {
		t.Errorf("init: %+v", first)
	}
	before := read("hub/pki/agents-ca.crt") + read("hub/pki/agents-ca.key") + read("hub/pki/serving-ca.crt") + read("hub/pki/serving-ca.key")
	if again := clitest.Run(t, dir, "pki", "init", "--state", "hub"); again != first {
		t.Errorf("again: %+v", again)
	}
	got := clitest.Run(t, dir, "pki", "agent", "--state", "hub", "--cluster", "edge-1", "--out", "edge-1", "--lifetime", "2h")
	if want := "culvert-agent --hub HOST:PORT --hub-ca edge-1/ca.crt --cert edge-1/tls.crt --key edge-1/tls.key\n"; got.Code != 0 || got.Stdout != want {
		t.Errorf("agent: %+v", got)
	}
	if before != read("hub/pki/agents-ca.crt")+read("hub/pki/agents-ca.key")+read("hub/pki/serving-ca.crt")+read("hub/pki/serving-ca.key") {
		t.Error("the authorities were changed")
	}
	for name, mode := range map[string]os.FileMode{
		"hub": 0o700, "hub/pki": 0o700, "hub/pki/agents-ca.key": 0o600, "hub/pki/serving-ca.key": 0o600, "edge-1": 0o700, "edge-1/tls.key": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", name, info.Mode().Perm(), err, mode)
		}
	}
	if read("edge-1/ca.crt") != read("hub/pki/serving-ca.crt") {
		t.Error("ca.crt is not the hub's serving CA")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "edge-1/tls.crt"), filepath.Join(dir, "edge-1/tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read("hub/pki/agents-ca.crt")))
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].String() != "spiffe://culvert.local/cluster/edge-1" {
		t.Errorf("names: %v", pair.Leaf.URIs)
	}
	if left := time.Until(pair.Leaf.NotAfter); left > 2*time.Hour || left < time.Hour {
		t.Errorf("valid for %v", left)
	}
}
