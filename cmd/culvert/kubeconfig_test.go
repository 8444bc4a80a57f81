package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/credential"
	credkube "github.com/culvertdev/culvert/internal/credential/kube"
	"github.com/culvertdev/culvert/internal/kubeconfig"
)

func TestKubeconfigCommand(t *testing.T) {
	dir := t.TempDir()
	address := runHub(t, dir)
	hub := []string{"kubeconfig", "--hub", "https://" + address, "--hub-ca", "state/pki/serving-ca.crt"}
	with := func(base []string, more ...string) []string { return append(slices.Clip(base), more...) }
	me := with(hub, "--token-file", "bob.token")
	t.Run("what cannot be meant is refused before anything is asked", func(t *testing.T) {
		clitest.Refuses(t, dir, "culvert", []clitest.Failure{
			clitest.Fails("no hub", []string{"kubeconfig", "--cluster", "a"}, "no hub is named: run culvert login https://HUB"),
			clitest.Fails("no cluster", me, "give the name of a cluster, or --all"),
			clitest.Fails("no token", with(hub, "--cluster", "a"), "no credential for https://", "--token-file"),
			clitest.Fails("two sources", with(me, "--cluster", "a", "--token-command", "x"), "--token-command: leave it out"),
			clitest.Fails("mode", with(me, "--cluster", "a", "--mode", "SNI"), "--mode:", "path, sni, passthrough or end-to-end"),
			clitest.Fails("access", with(me, "--cluster", "a", "--access", "x"), "--access:", "or both"),
			clitest.Fails("nobody of the cluster", with(me, "--cluster", "a", "--mode", "passthrough"), "--from, --token-request: in this mode the cluster itself authenticates you"),
			clitest.Fails("several things at once", with(me, "--all", "--name", "x", "--wait", "1h", "--rotate", "--set-current"), "--name:", "--wait:", "--rotate:", "--set-current:"),
			clitest.Fails("proxy", with(me, "--cluster", "a", "--proxy-url", "http://x"), "--proxy-url: is for --mode end-to-end"),
			clitest.Fails("two places", with(me, "--cluster", "a", "--merge", "-o", "x"), "--output: leave it out with --merge"),
			clitest.Fails("context", with(me, "--cluster", "a", "--from", "none"), "--from: no context is named"),
			clitest.Fails("URL", []string{"kubeconfig", "--hub", "http://x", "--token-file", "bob.token", "--cluster", "a"}, "--hub: want https://"),
			clitest.Fails("verified or not", with(me, "--cluster", "a", "--insecure-skip-tls-verify"), "--insecure-skip-tls-verify: leave it out with --hub-ca"),
		})
	})
	t.Run("S20: nothing is written of a cluster that is not there, or not ready", func(t *testing.T) {
		got := clitest.Run(t, dir, "clusters", "set", "--state", "state", "far", "--direct-url", "https://127.0.0.1:1")
		if got.Code != 0 || !strings.Contains(got.Stdout, "https://127.0.0.1:1") {
			t.Fatalf("%+v", got)
		}
		for cluster, want := range map[string]struct {
			code int
			args []string
		}{
			"NotFound: ":       {7, []string{"--cluster", "none"}},
			"TunnelNotReady: ": {8, []string{"far", "--access", "tunnel"}},
			"refused":          {1, []string{"far"}}, // the address is recorded, and nobody answers there
			"no cluster is ready: nothing is written": {8, []string{"--all"}},
		} {
			args := want.args
			got := clitest.Run(t, dir, with(with(me, args...), "--output", "made.kubeconfig")...)
			if got.Code != want.code || !strings.Contains(got.Stderr, cluster) || got.Stdout != "" {
				t.Errorf("%q: %+v", args, got)
			}
			if _, err := os.Stat(filepath.Join(dir, "made.kubeconfig")); !os.IsNotExist(err) {
				t.Errorf("%q: a file is there: %v", args, err)
			}
		}
	})
}

func TestCredentialCommand(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "me.token"), []byte("tok-me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := clitest.Run(t, dir, "credential", "--hub", "https://hub.example.com", "--token-file", "me.token")
	if got.Code != 0 || got.Stdout != `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false},"status":{"token":"tok-me"}}`+"\n" || got.Stderr != "" {
		t.Errorf("%+v", got)
	}
	t.Run("S16: the second call takes the token from the disk, by hub", func(t *testing.T) {
		args := []string{"credential", "--hub", "https://a.example.com", "--token-command", "echo called >> calls; echo tok-$(wc -l < calls | tr -d ' ')"}
		for range 2 {
			if got := clitest.Run(t, dir, args...); !strings.Contains(got.Stdout, `"tok-1"`) {
				t.Errorf("%+v", got)
			}
		}
		args[2] = "https://b.example.com"
		if got := clitest.Run(t, dir, args...); !strings.Contains(got.Stdout, `"tok-2"`) {
			t.Errorf("another hub: %+v", got)
		}
	})
	t.Run("the environment says the source where no flag does", func(t *testing.T) {
		for _, args := range [][]string{{"credential"}, {"credential", "--hub", "https://hub.example.com"}} {
			cmd := clitest.Command(t.Context(), dir, args...)
			cmd.Env = append(cmd.Env, "CULVERT_TOKEN_FILE="+filepath.Join(dir, "me.token"))
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"tok-me"`) {
				t.Errorf("%q: %v %s", args, err, out)
			}
		}
	})
	t.Run("a client that wants another form is told", func(t *testing.T) {
		cmd := clitest.Command(t.Context(), dir, "credential", "--token-file", "me.token")
		cmd.Env = append(cmd.Env, credkube.EnvironmentInfo+`={"apiVersion":"client.authentication.k8s.io/v1alpha1","kind":"ExecCredential"}`)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "set apiVersion: client.authentication.k8s.io/v1") || strings.Contains(string(out), "tok-me") {
			t.Errorf("%v %s", err, out)
		}
	})
	clitest.Refuses(t, dir, "culvert", []clitest.Failure{
		clitest.Fails("no source", []string{"credential"}, "no hub is named: run culvert login"),
		clitest.Fails("failing program", []string{"credential", "--token-command", "exit 3"}, "command for the token", "exit status 3"),
		clitest.Fails("program that says nothing", []string{"credential", "--token-command", "true"}, "want one token and nothing else"),
		clitest.Fails("account", []string{"credential", "--service-account", "robot"}, "want NAMESPACE/NAME"),
		clitest.Fails("no cluster", []string{"credential", "--token-file", "me.token", "--token-request", "a/b"}, "--cluster: required with --token-request"),
	})
}

// TestProxyURL is about what the end-to-end form asks a client to believe.
func TestProxyURL(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("tok/en+1="), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(proxy string) (kubeconfig.Entry, error) {
		e := kubeconfig.Entry{Name: "a", Endpoint: kubeconfig.EndToEnd("a.example.com", "kubernetes", "https://hub.example.com:8443", []byte("hub\n"), []byte("cluster\n"))}
		m := &entryMaker{o: &kubeconfigOptions{proxyURL: proxy}, hub: &hubCaller{source: credential.File{Path: token}}}
		err := m.setProxy(t.Context(), &e, []byte("cluster\n"))
		return e, err
	}
	t.Run("the hub as the proxy gets the caller's token, and client-go reads it back", func(t *testing.T) {
		e, err := with("")
		if err != nil {
			t.Fatal(err)
		}
		text, err := kubeconfig.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.RESTConfigFromKubeConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		u, err := config.Proxy(nil)
		if err != nil {
			t.Fatal(err)
		}
		if password, _ := u.User.Password(); password != "tok/en+1=" || u.Host != "hub.example.com:8443" || string(e.CA) != "hub\ncluster\n" {
			t.Errorf("%v %q", u.Host, e.CA)
		}
	})
	t.Run("another proxy gets no token, and with one in the clear the hub's CA is not believed", func(t *testing.T) {
		for proxy, ca := range map[string]string{
			"http://hub.example.com:3128": "cluster\n", "socks5://localhost:1080": "cluster\n", "https://other.example.com": "hub\ncluster\n",
		} {
			if e, err := with(proxy); err != nil || e.ProxyURL != proxy || string(e.CA) != ca {
				t.Errorf("%s: %v %+v", proxy, err, e.Endpoint)
			}
		}
		if _, err := with("ftp://x"); err == nil {
			t.Error("ftp is a proxy")
		}
	})
}
