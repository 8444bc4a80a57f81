package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/pki"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// folder returns one with what a hub can be pointed at: good files, and bad ones.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tokens.csv":    "tok-ada,ada,1,\"dev\"\n",
		"twice.csv":     "tok-ada,ada,1\ntok-bob,bob,2\ntok-ada,eve,3\n",
		"short.csv":     "tok-ada,ada\n",
		"none.csv":      "",
		"notpem":        "hello\n",
		"unknown.yaml":  "state: s\nlistn: x\n",
		"inner.yaml":    "tokenReview: {kubecfg: x}\n",
		"repeated.yaml": "state: a\nstate: b\n",
		"broken.yaml":   "state: [\n",
		"list.yaml":     "- state\n",
		"types.yaml":    "drainTimeout: fast\nlisten: 5\ntlsNames: x\n",
		"kubeconfig":    "apiVersion: v1\nkind: Config\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Two authorities: certificates and keys that do not belong together.
	for _, state := range []string{"a", "b", "open", "torn"} {
		if _, err := pki.LoadOrCreate(filepath.Join(dir, state, "pki"), pki.RoleAgents); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "open", "pki", "agents-ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "torn", "pki", "agents-ca.key")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRefusedConfiguration(t *testing.T) {
	good := func(more ...string) []string {
		return append([]string{"--state", "s", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0"}, more...)
	}
	clitest.Refuses(t, folder(t), "culvert-hub", []clitest.Failure{
		clitest.Fails("nothing", nil, "state: required", "tokenFile, tokenReview: give at least one"),
		clitest.Fails("nobody could call", []string{"--state", "s"}, "tokenFile, tokenReview: give at least one"),
		clitest.Fails("unknown flag", good("--frobnicate"), "unknown flag: --frobnicate", "see culvert-hub --help"),
		clitest.Fails("argument", good("extra"), `"extra"`, "see culvert-hub --help"),
		clitest.Fails("flag without a value", []string{"--state"}, "flag needs an argument: --state"),
		clitest.Fails("duration", good("--drain-timeout", "fast"), "--drain-timeout", `"fast"`),
		clitest.Fails("negative duration", good("--drain-timeout", "-1s"), "drainTimeout: -1s is negative"),
		clitest.Fails("log level", good("--log-level", "loud"), `--log-level: "loud" is not debug, info, warn or error`),
		clitest.Fails("log format", good("--log-format", "xml"), `--log-format: "xml" is not text or json`),
		clitest.Fails("address without a port", good("--listen", "8443"), "listen[1]: want host:port or :port"),
		clitest.Fails("agents' address without a port", good("--agent-listen", "x"), "agentListen[0]: want host:port or :port"),
		clitest.Fails("impossible port", good("--listen", "127.0.0.1:99999"), "listen:", "99999", "invalid port"),
		clitest.Fails("trust domain", good("--trust-domain", "A_b"), `trustDomain: "A_b"`, "lower"),
		clitest.Fails("certificate without a key", good("--tls-cert", "a/pki/agents-ca.crt"), "tlsCert", "a/pki/agents-ca.crt: holds no private key"),
		clitest.Fails("key without a certificate", good("--tls-key", "a/pki/agents-ca.key"), "tlsCert: required with tlsKey"),
		clitest.Fails("TLS version", good("--tls-min-version", "1.1"), `tls.minVersion: "1.1" is not 1.2 or 1.3`),
		clitest.Fails("cipher suite", good("--tls-min-version", "1.2", "--tls-cipher-suite", "TLS_RSA_WITH_AES_128_CBC_SHA"), `tls.cipherSuites[0]: "TLS_RSA_WITH_AES_128_CBC_SHA" is not one of`, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
		clitest.Fails("clients' CA that is not there", good("--client-ca", "no.pem"), "tls.clientCA", "no.pem", "no such file"),
		clitest.Fails("public CA without its terms", good("--acme-host", "hub.example.com"), "acme.acceptTerms: required"),
		clitest.Fails("lifetime of agents", good("--agent-lifetime", "1s"), "certificates.agentLifetime: 1s is less than 10s"),
		clitest.Fails("approval", good("--enrolment-approval", "yes"), `enrolment.approval: "yes" is not auto or manual`),
		clitest.Fails("address for agents", good("--advertise", "hub"), `advertise: "hub": want host:port`),
		clitest.Fails("metrics without a port", good("--metrics-listen", "9090"), "metricsListen: want host:port"),
		clitest.Fails("certificate that is none", good("--tls-cert", "notpem", "--tls-key", "a/pki/agents-ca.key"), "tlsCert", "notpem: holds no PEM block"),
		clitest.Fails("key that is none", good("--tls-cert", "a/pki/agents-ca.crt", "--tls-key", "a/pki/agents-ca.crt"), "tlsKey", "holds no private key"),
		clitest.Fails("key of another certificate", good("--tls-cert", "a/pki/agents-ca.crt", "--tls-key", "b/pki/agents-ca.key"), "b/pki/agents-ca.key is not the key of a/pki/agents-ca.crt"),
		clitest.Fails("name for the certificate", good("--tls-name", "bad name"), "tlsNames", `"bad name" is not a DNS name`, "want labels"),
		clitest.Fails("agents' CA that is not there", good("--agent-ca", "no.pem"), "agentCA", "no.pem", "no such file"),
		clitest.Fails("CA key that all can read", []string{"--state", "open", "--token-file", "tokens.csv"}, "agents CA", "mode 0644", "chmod 600 open/pki/agents-ca.key"),
		clitest.Fails("CA without its key", []string{"--state", "torn", "--token-file", "tokens.csv"}, "torn/pki/agents-ca.crt is there without its key", "restore torn/pki/agents-ca.key"),
		clitest.Fails("state that is a file", []string{"--state", "tokens.csv", "--token-file", "tokens.csv"}, "tokens.csv", "not a directory"),
		clitest.Fails("token file that is not there", good("--token-file", "no.csv"), "tokenFile", "no.csv", "no such file"),
		clitest.Fails("token file with a token twice", good("--token-file", "twice.csv"), "tokenFile: twice.csv", "line 3: the token is that of line 1", "give each line its own"),
		clitest.Fails("token file with short lines", good("--token-file", "short.csv"), "tokenFile: short.csv", "line 1: has 2 columns", "write token,user,uid"),
		clitest.Fails("token file without tokens", good("--token-file", "none.csv"), "tokenFile: none.csv", "holds no tokens", "add a line"),
		clitest.Fails("token review without a file", good("--token-review-kubeconfig", "no"), "tokenReview.kubeconfig: no", "no such file"),
		clitest.Fails("token review without a server", good("--token-review-kubeconfig", "kubeconfig"), "tokenReview.kubeconfig"),
		clitest.Fails("token review of two clusters", good("--token-review-kubeconfig", "kubeconfig", "--token-review-in-cluster"), "kubeconfig and inCluster exclude each other"),
		clitest.Fails("token review outside of a cluster", good("--token-review-in-cluster"), "tokenReview.inCluster"),
		clitest.Fails("audience of no review", good("--token-review-audience", "x"), "tokenReview: no cluster is named: set kubeconfig or inCluster"),
		clitest.Fails("configuration file that is not there", []string{"--config", "no.yaml"}, "--config", "no.yaml", "no such file"),
		clitest.Fails("unknown field", []string{"--config", "unknown.yaml"}, "--config unknown.yaml: listn: there is no such field", "see --help"),
		clitest.Fails("unknown inner field", []string{"--config=inner.yaml"}, "inner.yaml: tokenReview.kubecfg: there is no such field"),
		clitest.Fails("repeated field", []string{"--config", "repeated.yaml"}, "repeated.yaml", "line 2", `"state" already set`),
		clitest.Fails("broken file", []string{"--config", "broken.yaml"}, "broken.yaml: not valid YAML"),
		clitest.Fails("file of another shape", []string{"--config", "list.yaml"}, "list.yaml: want a mapping"),
		clitest.Fails("wrong types, all at once", []string{"--config", "types.yaml"}, "drainTimeout: ", `"fast"`, "listen: want []string, got number", "tlsNames: want []string, got string"),
	})
}

func TestSecondHub(t *testing.T) {
	dir := folder(t)
	first, log := clitest.Start(t, dir, "--state", "s", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0")
	match := regexp.MustCompile(`msg="hub is serving" listen=(\S+)`).FindStringSubmatch(clitest.AwaitText(t, log, "hub is serving"))
	if match == nil {
		t.Fatal("the log does not say where the hub listens")
	}
	address := match[1]
	clitest.Refuses(t, dir, "culvert-hub", []clitest.Failure{
		clitest.Fails("state of a running hub", []string{"--state", "s", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0"}, "s/hub.db: in use by another hub", "give this one a state folder of its own"),
		clitest.Fails("port of a running hub", []string{"--state", "s2", "--token-file", "tokens.csv", "--listen", address}, fmt.Sprintf("listen: %s is in use", address), "choose another address"),
		clitest.Fails("port of a running hub, for agents", []string{"--state", "s2", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0", "--agent-listen", address}, fmt.Sprintf("agentListen: %s is in use", address), "choose another address"),
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("the first hub is gone: %v", err)
	}
	conn.Close()
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("SIGTERM: %v: %s", err, clitest.AwaitText(t, log, ""))
	}
}

func TestFileAndFlags(t *testing.T) {
	dir := folder(t)
	text := "state: s\nlisten: [\"127.0.0.1:1\"]\ntokenFile: no.csv\ndrainTimeout: 1s\ntlsNames: [hub.example.com]\n"
	if err := os.WriteFile(filepath.Join(dir, "hub.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	hub, log := clitest.Start(t, dir, "--config", "hub.yaml", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0", "--log-format", "json")
	said := clitest.AwaitText(t, log, `"msg":"hub is serving"`)
	if !strings.Contains(said, "hub.example.com") {
		t.Errorf("the names of the file are not used: %s", said)
	}
	if err := hub.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := hub.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestHelp(t *testing.T) {
	got := clitest.Run(t, t.TempDir(), "--help")
	if got.Code != 0 || got.Stderr != "" {
		t.Errorf("exit code %d, %s", got.Code, got.Stderr)
	}
	for _, part := range []string{
		"Usage:", "Examples:", "--state string", "(required)", "--token-file", "--token-review-kubeconfig", "--agent-listen", "--tls-cert", "--trust-domain",
		"--agent-ca", "--advertise", "--metrics-listen", "--enrolment-approval", "--admin-user", "SIGHUP", "culvert token create", "--config", "--log-level", `default ":8443")`,
	} {
		if !strings.Contains(got.Stdout, part) {
			t.Errorf("help lacks %q: %s", part, got.Stdout)
		}
	}
	if got := clitest.Run(t, t.TempDir(), "--version"); got.Code != 0 || !strings.HasPrefix(got.Stdout, "culvert-hub version ") {
		t.Errorf("--version: %+v", got)
	}
}
