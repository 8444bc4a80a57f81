package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/pki"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: a, user: {}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
`

// folder returns one with the files of an agent, and bad ones.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kubeconfig": kubeconfig, "notpem": "hello\n", "broken": "clusters: [",
		"unknown.yaml": "server: x\n", "types.yaml": "allowServices: a/b\nlabels: [a]\n", "rules.yaml": "hub: x:1\nallowServices: [a]\n",
		"places.yaml": "stateSecret: {namespace: a, name: b}\n", "secret.yaml": "stateSecret: {user: \"cluster:hub:a\"}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), pki.RoleAgents)
	if err != nil {
		t.Fatal(err)
	}
	for folder, lifetime := range map[string]time.Duration{"cert": time.Hour, "other": time.Hour} {
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.IssueAgent(key.Public(), "culvert.local", "edge-1", lifetime)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := pki.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.WriteKeyPair(filepath.Join(dir, folder), cert, encoded, ca.PEM()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// good is a command line that works, but for a hub that does not answer.
func good(more ...string) []string {
	return append([]string{
		"--hub", "127.0.0.1:1", "--hub-ca", "cert/ca.crt", "--cert", "cert/tls.crt", "--key", "cert/tls.key", "--kubeconfig", "kubeconfig",
	}, more...)
}

func TestRefusedConfiguration(t *testing.T) {
	clitest.Refuses(t, folder(t), "culvert-agent", []clitest.Failure{
		clitest.Fails("a state that is not there", []string{"--state", "no"}, "state no: there is no certificate in it: join with culvert-agent join --token TOKEN"),
		clitest.Fails("a key alone", []string{"--key", "cert/tls.key"}, "hub: required", "hubCA: required", "cert: required"),
		clitest.Fails("a state and a certificate", good("--state", "s"), "state, cert, key, certDir:", "somebody else renews"),
		clitest.Fails("a folder and a certificate", good("--cert-dir", "cert"), "cert, key, certDir: give two files or a folder"),
		clitest.Fails("a folder that is not there", []string{"--hub", "127.0.0.1:1", "--cert-dir", "no"}, "agent certificate", "no/tls.crt", "no such file"),
		clitest.Fails("a state in two places", []string{"--config", "places.yaml", "--state", "s"}, "stateSecret: not together with state"),
		clitest.Fails("a Secret without a name, as a user that callers could be", []string{"--config", "secret.yaml"},
			"stateSecret.namespace:", "stateSecret.name:", `stateSecret.user: "cluster:hub:a" does not begin with "system:culvert:"`),
		clitest.Fails("a Secret of a cluster that is away", []string{"--config", "places.yaml", "--kubeconfig", "kubeconfig"}, "state: secret a/b: "),
		clitest.Fails("a proxy of another kind", good("--proxy", "socks5://127.0.0.1:1"), "proxy: url:", "socks5"),
		clitest.Fails("metrics without a port", good("--metrics-listen", "localhost"), "metricsListen: want host:port"),
		clitest.Fails("unknown flag", good("--frobnicate"), "unknown flag: --frobnicate", "see culvert-agent --help"),
		clitest.Fails("argument", good("extra"), `"extra"`, "see culvert-agent --help"),
		clitest.Fails("hub with a scheme", good("--hub", "https://hub.example.com:443"), "hub: want host:port, without a scheme"),
		clitest.Fails("hub without a port", good("--hub", "hub.example.com"), "hub: want host:port"),
		clitest.Fails("hub without a host", good("--hub", ":443"), "hub: want host:port"),
		clitest.Fails("hub with a path", good("--hub", "hub.example.com:443/x"), "hub: want host:port"),
		clitest.Fails("impossible port of the hub", good("--hub", "hub.example.com:99999"), "hub: want host:port", "99999"),
		clitest.Fails("hub CA that is not there", good("--hub-ca", "no.crt"), "hub CA", "no.crt", "no such file"),
		clitest.Fails("hub CA that is none", good("--hub-ca", "notpem"), "hub CA", "notpem: holds no PEM block"),
		clitest.Fails("certificate that is not there", good("--cert", "no.crt"), "agent certificate", "no.crt", "no such file"),
		clitest.Fails("key of another certificate", good("--key", "other/tls.key"), "other/tls.key is not the key of cert/tls.crt"),
		clitest.Fails("kubeconfig that is not there", good("--kubeconfig", "no"), "kubeconfig no", "no such file"),
		clitest.Fails("kubeconfig that is broken", good("--kubeconfig", "broken"), "kubeconfig broken"),
		clitest.Fails("no kubeconfig outside of a cluster", []string{"--hub", "127.0.0.1:1", "--hub-ca", "cert/ca.crt", "--cert", "cert/tls.crt", "--key", "cert/tls.key"}, "in-cluster", "give a kubeconfig outside of a cluster"),
		clitest.Fails("unknown context", good("--context", "nosuch"), "kubeconfig", `context "nosuch" does not exist`),
		clitest.Fails("service without a namespace", good("--allow-service", "web"), `allowServices[0]: service rule "web"`, "want NAMESPACE/NAME[:PORT]"),
		clitest.Fails("several bad rules", good("--allow-service", "a/b", "--allow-service", "A/b", "--allow-service", "a/b:", "--allow-address", "x"),
			`allowServices[1]: service rule "A/b": namespace`, "lower-case", "allowServices[2]", "empty port, leave out the ':' for all ports", "allowAddresses[0]", "want host:port",
		),
		clitest.Fails("service port", good("--allow-service", "a/b:0443"), "allowServices[0]", "without leading zeros"),
		clitest.Fails("resolver without a port", good("--dns-server", "10.0.0.10"), "dnsServer: want host:port"),
		clitest.Fails("service CA that is not there", good("--service-ca", "no.crt"), "serviceCA", "no.crt", "no such file"),
		clitest.Fails("label", good("--label", "x"), "--label", "key=value"),
		clitest.Fails("negative duration", good("--drain-timeout", "-1s"), "drainTimeout: -1s is negative"),
		clitest.Fails("unknown field", []string{"--config", "unknown.yaml"}, "--config unknown.yaml: server: there is no such field", "see --help"),
		clitest.Fails("wrong types", []string{"--config", "types.yaml"}, "allowServices: want []string, got string", "labels: want map[string]string, got array"),
		clitest.Fails("rule of a file", []string{"--config", "rules.yaml"}, `allowServices[0]: service rule "a"`),
	})
}

func TestRefusedJoin(t *testing.T) {
	dir := folder(t)
	text, err := enrol.Token{
		ID: "0123456789abcdef", Secret: "PLANTED-secret", Hub: "127.0.0.1:1", System: true, Cluster: "edge-1",
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	join := func(more ...string) []string {
		return append([]string{"join", "--state", "s", "--enrol-only"}, more...)
	}
	clitest.Refuses(t, dir, "culvert-agent", []clitest.Failure{
		clitest.Fails("no token", join(), "token, serviceAccountTokenFile: give one of them", "culvert token create"),
		clitest.Fails("K6: a token that was cut off", join("--token", text[:len(text)-1]), "join: join token: the text is damaged", "culvert token create"),
		clitest.Fails("K6: a token without its start", join("--token", text[4:]), `does not begin with "culvert-join."`),
		clitest.Fails("two tokens", join("--token", text, "--token-file", "token"), "--token, --token-file: give one of them"),
		clitest.Fails("a token file that is not there", join("--token-file", "no"), "--token-file", "no such file"),
		clitest.Fails("a token file that is empty", join("--token-file", "empty"), "--token-file: empty is empty"),
		clitest.Fails("a token of another cluster", join("--token-file", "token", "--cluster", "edge-2"), "the join token is for edge-1 and not for edge-2"),
		clitest.Fails("a service account without a hub", join("--service-account-token-file", "token"), "hub: required", "hubCA: required"),
		clitest.Fails("a certificate", join("--token", text, "--cert", "cert/tls.crt"), "cert, key, certDir: not together with joining"),
		clitest.Fails("a token without its flag", join(text), "a join token is given with --token", "see culvert-agent join --help"),
		clitest.Fails("a token without its command", []string{text}, "a join token is given with --token", "see culvert-agent --help"),
	})
	for _, args := range [][]string{join("--token", text[:len(text)-1]), join(text), {text}, join("--tokn", text), join("--token-file", text)} {
		if got := clitest.Run(t, dir, args...); strings.Contains(got.Stderr+got.Stdout, text[20:60]) && args[len(args)-2] != "--token-file" {
			t.Errorf("the token is shown: %s", got.Stderr)
		}
	}
}

func TestHangup(t *testing.T) {
	dir := folder(t)
	agent, log := clitest.Start(t, dir, good()...)
	clitest.AwaitText(t, log, "no connection to the hub, trying again")
	hangUp := func() {
		t.Helper()
		if err := agent.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	clitest.AwaitText(t, log, "read again")
	if err := os.WriteFile(filepath.Join(dir, "cert", "tls.key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp()
	clitest.AwaitText(t, log, "SIGHUP: not everything could be read")
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil {
		t.Error(err)
	}
}

func TestEnd(t *testing.T) {
	agent, log := clitest.Start(t, folder(t), good()...)
	clitest.AwaitText(t, log, "no connection to the hub, trying again")
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.Wait(); err != nil {
		t.Errorf("SIGTERM without a hub: %v: %s", err, clitest.AwaitText(t, log, ""))
	}
}

func TestHelp(t *testing.T) {
	got := clitest.Run(t, t.TempDir(), "--help")
	if got.Code != 0 || got.Stderr != "" {
		t.Errorf("exit code %d, %s", got.Code, got.Stderr)
	}
	for _, part := range []string{
		"Usage:", "Examples:", "--state", "--cert-dir", "--proxy", "--metrics-listen", "join", "--hub string", "--hub-ca", "--hub-name", "--cert", "--key", "--kubeconfig", "--context", "--allow-service", "--allow-address",
		"--service-ca", "--dns-server", "--config", "--log-level",
	} {
		if !strings.Contains(got.Stdout, part) {
			t.Errorf("help lacks %q: %s", part, got.Stdout)
		}
	}
	joining := clitest.Run(t, t.TempDir(), "join", "--help")
	for _, part := range []string{
		"culvert token create", "Examples:", "--token ", "--token-file", "--service-account-token-file", "--cluster", "--force", "--enrol-only", "--accept-timeout", "--state", "--hub ", "--kubeconfig",
	} {
		if !strings.Contains(joining.Stdout, part) {
			t.Errorf("help of join lacks %q: %s", part, joining.Stdout)
		}
	}
	if got := clitest.Run(t, t.TempDir(), "--version"); got.Code != 0 || !strings.HasPrefix(got.Stdout, "culvert-agent version ") {
		t.Errorf("--version: %+v", got)
	}
}
