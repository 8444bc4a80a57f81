package trust

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// paste runs a line of a shell, as somebody does who pastes it into a terminal on
// the private host, until the end of the test.
func paste(ctx context.Context, t *testing.T, name, line string, env ...string) *testbed.Process {
	t.Helper()
	p, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent-" + name, Path: "/bin/bash", Args: []string{"-c", "exec " + line}, LogDir: testbed.Dir(),
		Env: append(processEnv(), env...), Namespace: the.private.Inside,
	})
	must(t, err)
	t.Cleanup(func() { check(t, p.Stop(context.Background())) })
	return p
}

// kubectl is what ada calls a cluster with, by way of the hub.
func (h *hub) kubectl(t *testing.T, cluster string) testbed.Kubectl {
	t.Helper()
	ca, err := os.ReadFile(h.caFile())
	must(t, err)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(file, testbed.Kubeconfig("https://"+h.addr()+"/"+cluster, ca, the.ada), 0o600))
	return the.managed.KubectlAs(file)
}

// namespaces polls kubectl get ns until it works.
func namespaces(ctx context.Context, t *testing.T, k testbed.Kubectl) {
	t.Helper()
	must(t, testbed.Poll(ctx, "kubectl get ns", func(ctx context.Context) error {
		out, err := k.Run(ctx, "get", "ns", "--output=name")
		if err == nil && !strings.Contains(out, "namespace/kube-system") {
			err = fmt.Errorf("%q", out)
		}
		return err
	}))
}

// TestJoin is in order: the second part closes the private network.
func TestJoin(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 4*time.Minute)
	var h *hub
	t.Run("K6,O6: from nothing to kubectl get ns through the hub in three pasted commands", func(t *testing.T) {
		started := time.Now()
		var err error
		h, err = the.newHub(ctx, "join", hubConfig{})
		must(t, err)
		hubUp := time.Now()
		line, _ := h.token(ctx, t, "edge-1")
		made := time.Now()
		// Outside of a pod an agent is told its cluster; and no root is needed.
		paste(ctx, t, "join-edge-1", line+" --kubeconfig "+the.kubeconfig+" --state "+agentDir("edge-1"))
		namespaces(ctx, t, h.kubectl(t, "edge-1"))
		t.Logf("from nothing to kubectl get ns: %v (hub %v, token %v, agent and kubectl %v)", time.Since(started).Round(time.Millisecond),
			hubUp.Sub(started).Round(time.Millisecond), made.Sub(hubUp).Round(time.Millisecond), time.Since(made).Round(time.Millisecond))
		out, err := h.cli(ctx, "clusters", "list")
		if err != nil || !strings.Contains(out, "edge-1") {
			t.Errorf("culvert clusters list: %v: %s", err, out)
		}
	})
	if h == nil {
		t.Fatal("no hub")
	}
	defer func() { check(t, h.stop()) }()

	t.Run("O6: the same line again finds the cluster joined, and just runs", func(t *testing.T) {
		line, _ := h.token(ctx, t, "edge-again")
		line += " --kubeconfig " + the.kubeconfig + " --state " + agentDir("edge-again")
		first := paste(ctx, t, "join-edge-again", line)
		h.await(ctx, t, "edge-again")
		cert, err := leafOf(filepath.Join(agentDir("edge-again"), "tls.crt"))
		must(t, err)
		must(t, first.Restart(ctx))
		awaitLine(ctx, t, first.Log(), 0, "already")
		h.await(ctx, t, "edge-again")
		again, err := leafOf(filepath.Join(agentDir("edge-again"), "tls.crt"))
		must(t, err)
		if !again.Equal(cert) {
			t.Error("it has another certificate")
		}
	})

	t.Run("O6: a cluster that has to be accepted by hand serves once it is, and not before", func(t *testing.T) {
		line, _ := h.token(ctx, t, "edge-slow", "--approval", "manual")
		agent := paste(ctx, t, "join-edge-slow", line+" --kubeconfig "+the.kubeconfig+" --state "+agentDir("edge-slow"))
		awaitLine(ctx, t, agent.Log(), 0, "accept", "edge-slow")
		if status, body, err := h.get(ctx, "/edge-slow/version"); status == 200 || err != nil {
			t.Errorf("before it is accepted: %d %s %v", status, body, err)
		}
		_, err := h.cli(ctx, "clusters", "accept", "edge-slow")
		must(t, err)
		h.await(ctx, t, "edge-slow")
	})

	t.Run("K5,P6: the same behind a squid that wants a password and allows CONNECT to the hub's port and nothing else", func(t *testing.T) {
		password := rand.Text()
		the.plant("the password of squid", password)
		squid := startSquid(ctx, t, testbed.SquidConfig{Name: "squid-join", Allow: netip.MustParseAddrPort(h.addr()), User: "edge", Password: password})
		must(t, the.private.AllowOnly(squid.Addr))
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if conn, err := the.private.Inside.Dial(short, "tcp", h.addr()); err == nil {
			conn.Close()
			t.Fatal("the hub can be reached without the proxy")
		}
		credentials := filepath.Join(testbed.Dir(), "squid-join.credentials")
		must(t, os.WriteFile(credentials, []byte("edge:"+password+"\n"), 0o600))

		started := time.Now()
		line, _ := h.token(ctx, t, "edge-2")
		agent := paste(ctx, t, "join-edge-2", line+" --kubeconfig "+the.kubeconfig+" --state "+agentDir("edge-2")+" --proxy-credentials-file "+credentials,
			"HTTPS_PROXY=http://"+squid.Addr.String())
		namespaces(ctx, t, h.kubectl(t, "edge-2"))
		t.Logf("behind squid, from the token to kubectl get ns: %v", time.Since(started).Round(time.Millisecond))

		var returns []time.Duration // of which a busy machine may hold up a single one
		for range 3 {
			must(t, h.process.Restart(ctx))
			back := time.Now()
			h.await(ctx, t, "edge-2")
			returns = append(returns, time.Since(back).Round(time.Millisecond))
		}
		t.Logf("the agent is back %v after the hub", returns)
		slices.Sort(returns)
		if err := testbed.InTime(ctx, bin("culvert"), returns[len(returns)/2], 2*time.Second); err != nil {
			t.Errorf("the agent's return: %v", err)
		}

		must(t, agent.Stop(ctx)) // squid logs a tunnel at its end
		must(t, testbed.Poll(ctx, "squid's log", func(context.Context) error {
			lines, err := squid.Requests()
			if err == nil && len(lines) < 2 {
				err = fmt.Errorf("%q", lines)
			}
			return err
		}))
		lines, err := squid.Requests()
		must(t, err)
		for _, line := range lines {
			// 503 while the hub was away.
			if !strings.Contains(line, "TCP_TUNNEL/200") && !strings.Contains(line, "NONE_NONE/503") || !strings.Contains(line, "CONNECT "+h.addr()+" edge ") {
				t.Errorf("squid served something else: %s", line)
			}
		}
	})
}

// startSquid runs a squid until the end of the test.
func startSquid(ctx context.Context, t *testing.T, cfg testbed.SquidConfig) *testbed.Squid {
	t.Helper()
	cfg.Dir, cfg.Listen = testbed.Dir(), testbed.HubAddress
	s, err := testbed.StartSquid(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	port, err := testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(port.Close)
	return port.Addr()
}

func TestProxy(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 4*time.Minute)
	h := the.hub
	dir := h.enrol(ctx, t, "proxied")
	hubAddr := netip.MustParseAddrPort(h.addr())
	password := rand.Text()
	the.plant("the password of the locked squid", password)
	open := startSquid(ctx, t, testbed.SquidConfig{Name: "squid-open", Allow: hubAddr})
	locked := startSquid(ctx, t, testbed.SquidConfig{Name: "squid-locked", Allow: hubAddr, User: "edge", Password: password})
	elsewhere := startSquid(ctx, t, testbed.SquidConfig{Name: "squid-elsewhere", Allow: netip.AddrPortFrom(hubAddr.Addr(), 1)})
	secure := startTLSFront(t, open.Addr.String())
	wrong, right := filepath.Join(t.TempDir(), "wrong"), filepath.Join(t.TempDir(), "right")
	wrongPassword := rand.Text()
	the.plant("a wrong password", wrongPassword)
	must(t, os.WriteFile(wrong, []byte("edge:"+wrongPassword), 0o600))
	must(t, os.WriteFile(right, []byte("edge:"+password), 0o600))
	away := closedPort(t)
	agent := func(t *testing.T, name string, args ...string) *testbed.Process {
		t.Helper()
		return startAgent(ctx, t, "proxy-"+name, append([]string{"--state", dir, "--kubeconfig", the.source.kubeconfig}, args...)...)
	}
	via := func(s *testbed.Squid) string { return "http://" + s.Addr.String() }

	t.Run("K5: each way to a proxy works: with and without a password, in TLS, and past it for exceptions", func(t *testing.T) {
		for _, c := range []struct {
			name string
			args []string
		}{
			{"open", []string{"--proxy", via(open)}},
			{"file", []string{"--proxy", via(locked), "--proxy-credentials-file", right}},
			{"url", []string{"--proxy", "http://edge:" + password + "@" + locked.Addr.String()}},
			{"tls", []string{"--proxy", "https://" + secure.addr, "--proxy-ca", secure.ca}},
			{"exception", []string{"--proxy", "http://" + away, "--no-proxy", "192.0.2.0/24," + hubAddr.Addr().String()}},
		} {
			p := agent(t, c.name, c.args...)
			awaitLine(ctx, t, p.Log(), 0, "connected to the hub")
			h.await(ctx, t, "proxied")
			must(t, p.Stop(ctx))
		}
	})

	t.Run("K5,N10: a proxy's refusal is in the agent's log with the hop, the status and the remedy, and no password", func(t *testing.T) {
		for _, c := range []struct {
			name string
			args []string
			says []string
		}{
			{"407-none", []string{"--proxy", via(locked)}, []string{"407 Proxy Authentication Required", "give user:password in a credentials file"}},
			{"407-wrong", []string{"--proxy", via(locked), "--proxy-credentials-file", wrong}, []string{"407", "does not accept the credentials"}},
			{"403", []string{"--proxy", via(elsewhere)}, []string{"403 Forbidden", "allow CONNECT to " + h.addr()}},
			{"503", []string{"--proxy", via(elsewhere), "--hub", hubAddr.Addr().String() + ":1"}, []string{"503 Service Unavailable", "the proxy cannot reach"}},
			{"away", []string{"--proxy", "http://" + away}, []string{"proxy http://" + away + ": connect:", "connection refused"}},
			{"http", []string{"--proxy", "http://" + secure.addr}, []string{"proxy http://" + secure.addr}},
			{"https", []string{"--proxy", "https://" + open.Addr.String()}, []string{"does not answer in TLS: use http://"}},
			{"ca", []string{"--proxy", "https://" + secure.addr}, []string{"unknown authority", "setting ca of the proxy"}},
		} {
			p := agent(t, c.name, c.args...)
			line := awaitLine(ctx, t, p.Log(), 0, append(c.says, "no connection to the hub", "proxy http")...)
			t.Logf("%s: %s", c.name, line)
			must(t, p.Stop(ctx))
		}
	})

	t.Run("K5: a corrected credentials file is used without a restart", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "credentials")
		must(t, os.WriteFile(file, []byte("edge:"+wrongPassword), 0o600))
		p := agent(t, "mended", "--proxy", via(locked), "--proxy-credentials-file", file)
		awaitLine(ctx, t, p.Log(), 0, "407")
		must(t, os.WriteFile(file+".new", []byte("edge:"+password), 0o600))
		must(t, os.Rename(file+".new", file))
		awaitLine(ctx, t, p.Log(), 0, "connected to the hub")
	})
}

// tlsFront is what stands before a squid that is spoken to in TLS.
type tlsFront struct{ addr, ca string }

func startTLSFront(t *testing.T, to string) tlsFront {
	t.Helper()
	ca, err := newAuthority("proxy CA")
	must(t, err)
	ln, err := net.Listen("tcp", netip.AddrPortFrom(testbed.HubAddress, 0).String())
	must(t, err)
	f := tlsFront{addr: ln.Addr().String(), ca: filepath.Join(t.TempDir(), "proxy-ca.crt")}
	must(t, os.WriteFile(f.ca, ca.pem(), 0o600))
	cert, err := ca.sign(serverTemplate(testbed.HubAddress.String()))
	must(t, err)
	ended := make(chan struct{})
	go forward(ln, cert, to, ended)
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return f
}
