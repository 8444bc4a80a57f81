package refusals

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// badCertificate is one that proves no cluster.
type badCertificate struct {
	name   string
	change func(*x509.Certificate)
	// foreign signs it with an authority of the same name and another key.
	foreign bool
	// reason is what the hub's log says.
	reason string
	// atAgent is what the agent says, where it does not even start with it.
	atAgent string
}

func badCertificates() []badCertificate {
	uris := func(ids ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, id := range ids {
				c.URIs = append(c.URIs, spiffe(id)...)
			}
		}
	}
	return []badCertificate{
		{name: "of another CA with the same name", foreign: true, reason: "signed by a CA that is not trusted here"},
		{name: "expired", change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, reason: "expired at", atAgent: "expired at"},
		{name: "not valid yet", change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }, reason: "not valid before", atAgent: "not valid before"},
		{name: "for servers", change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, reason: "it is for TLS servers (serverAuth), want TLS clients (clientAuth)"},
		{name: "an authority's", change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, reason: "the certificate of an authority"},
		{name: "of another trust domain", change: uris("spiffe://elsewhere.example/cluster/managed"), reason: "the trust domain is \\\"elsewhere.example\\\", want culvert.local"},
		{name: "without a URI", change: uris(), reason: "no URI subject alternative name, want spiffe://culvert.local/cluster/<name>"},
		{name: "with a common name only", change: func(c *x509.Certificate) {
			c.URIs, c.Subject = nil, pkix.Name{CommonName: "spiffe://culvert.local/cluster/managed"}
		}, reason: "no URI subject alternative name"},
		{name: "with a DNS name only", change: func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"managed"} }, reason: "no URI subject alternative name"},
		{name: "for two clusters", change: uris("spiffe://culvert.local/cluster/rogue", "spiffe://culvert.local/cluster/managed"), reason: "2 URI subject alternative names, want one"},
		{name: "for an upper-case cluster", change: uris("spiffe://culvert.local/cluster/Managed"), reason: "lower-case letters"},
		{name: "for a wildcard", change: uris("spiffe://culvert.local/cluster/*"), reason: "lower-case letters"},
		{name: "of another role", change: uris("spiffe://culvert.local/hub/managed"), reason: "want /cluster/<name>"},
		{name: "with a query", change: uris("spiffe://culvert.local/cluster/managed?x"), reason: "a query is not allowed"},
		{name: "with an escape", change: func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "culvert.local", Path: "/cluster/managed", RawPath: "/cluster/%6danaged"}}
		}, reason: "escaped bytes are not allowed"},
	}
}

func (b badCertificate) make(h *hub) (tls.Certificate, error) {
	signer, err := h.agentsCA()
	if err == nil && b.foreign {
		signer, err = newAuthority(signer.cert.Subject)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	template := agentTemplate()
	if b.change != nil {
		b.change(template)
	}
	return signer.sign(template)
}

// shakeHands connects as an agent does and returns how the hub ended it and the
// address under which its log has it.
func shakeHands(t *testing.T, addr string, cfg *tls.Config) (local string, err error) {
	t.Helper()
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, cfg)
	if err = conn.Handshake(); err == nil {
		_, err = io.ReadAll(conn) // TLS 1.3: the verdict comes after the client's part
	}
	return raw.LocalAddr().String(), err
}

func TestAgentCertificates(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	log := the.hub.process.Log()
	config := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: the.hub.roots, ServerName: "localhost", NextProtos: []string{tunnelProtocol}, Certificates: certs}
	}
	serving, err := tls.LoadX509KeyPair(filepath.Join(the.hub.state, "pki", "serving.crt"), filepath.Join(the.hub.state, "pki", "serving.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("K1: a certificate that proves no cluster is refused in the handshake, with one line that says why", func(t *testing.T) {
		// Who was refused, by address: a port may come round again for the other listener.
		refused := map[string][]string{}
		// Ports come round again: an earlier test may have used one of them.
		before := len(logLines(t, log, ""))
		check := func(name string, cfg *tls.Config, addr, reason string) {
			t.Helper()
			local, err := shakeHands(t, addr, cfg)
			var alert *net.OpError
			if !errors.As(err, &alert) || alert.Op != "remote error" {
				t.Errorf("%s: the connection ended with %v, want an alert", name, err)
			}
			awaitLine(ctx, t, log, "remote="+local+" ", "tls handshake refused", reason)
			refused[local] = append(refused[local], name)
		}
		for _, b := range badCertificates() {
			cert, err := b.make(the.hub)
			if err != nil {
				t.Fatal(err)
			}
			for _, addr := range []string{the.hub.addr, the.hub.agentAddr} {
				check(b.name, config(cert), addr, b.reason)
			}
		}
		check("none", config(), the.hub.addr, "client didn't provide a certificate")
		check("the hub's own", config(serving), the.hub.addr, "it is for TLS servers (serverAuth), want TLS clients (clientAuth); it is signed by a CA that is not trusted here")
		old := config()
		old.MaxVersion = tls.VersionTLS12
		check("TLS 1.2", old, the.hub.addr, "unsupported versions")
		web := config()
		web.NextProtos = []string{"h2"}
		check("a client at the port for agents", web, the.hub.agentAddr, "no front end on this port for the protocols that the client offers")
		for local, names := range refused {
			var lines []string
			for _, line := range logLines(t, log, "")[before:] {
				if strings.Contains(line, "remote="+local+" ") {
					lines = append(lines, line)
				}
			}
			if len(lines) != len(names) {
				t.Errorf("%q: %d lines: %q", names, len(lines), lines)
			}
		}
	})

	t.Run("K1,N10: the agent's own log says that its certificate was refused, or it does not start with one that cannot be good", func(t *testing.T) {
		for i, b := range badCertificates() {
			if !b.foreign && b.atAgent == "" && i%4 != 0 {
				continue // the words are the same for all that the hub alone refuses
			}
			cert, err := b.make(the.hub)
			dir := filepath.Join(t.TempDir(), "pair")
			if err := errors.Join(err, writePair(dir, cert)); err != nil {
				t.Fatal(err)
			}
			args := the.hub.agentArgs(dir, the.recorder.kubeconfig)
			if b.atAgent != "" {
				out, err := run(ctx, "culvert-agent", args...)
				if err == nil || !strings.Contains(out, b.atAgent) || !strings.Contains(out, filepath.Join(dir, "tls.crt")) {
					t.Errorf("%s: %v: %s", b.name, err, out)
				}
				continue
			}
			agent := startBadAgent(t, fmt.Sprintf("culvert-agent-bad%d", i), args)
			awaitLine(ctx, t, agent.Log(), "no connection to the hub", the.hub.addr, "the hub refused this agent's certificate, the hub's log says why")
			awaitLine(ctx, t, log, "tls handshake refused", b.reason)
		}
	})

	t.Run("O23,N10: an agent that does not trust the hub says so", func(t *testing.T) {
		dir, err := the.hub.issue(ctx, "rogue")
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []struct{ flags, says []string }{
			{[]string{"--hub-ca", filepath.Join(the.hub.state, "pki", "agents-ca.crt")}, []string{`tls with the hub as \"127.0.0.1\"`, "certificate signed by unknown authority"}},
			{[]string{"--hub-name", "other.example"}, []string{`tls with the hub as \"other.example\"`, "valid for localhost, not other.example"}},
		} {
			agent := startBadAgent(t, fmt.Sprintf("culvert-agent-wary%d", i), the.hub.agentArgs(dir, the.recorder.kubeconfig, c.flags...))
			awaitLine(ctx, t, agent.Log(), append(c.says, "no connection to the hub, trying again", "hub="+the.hub.addr)...)
		}
	})

	t.Run("K1: an agent of one cluster never serves another, whatever it says of itself", func(t *testing.T) {
		agent, err := the.hub.startAgent(ctx, "rogue", the.recorder.kubeconfig, "--label", "cluster=away", "--label", "name=managed")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := agent.Stop(ctx); err != nil {
				t.Error(err)
			}
		}()
		if err := the.hub.await(ctx, "rogue", the.ada); err != nil {
			t.Fatal(err)
		}
		if status, body, err := the.hub.get(ctx, "/away/version", the.ada); status != http.StatusServiceUnavailable {
			t.Errorf("away: %d %s %v", status, body, err)
		}
		for range 20 {
			if status, body, err := the.hub.get(ctx, "/managed/version", the.ada); status != http.StatusOK || !strings.Contains(body, "v1.35.1") {
				t.Errorf("managed: %d %s %v", status, body, err)
			}
		}
	})

	t.Run("O4,K1: an agent's certificate is nobody's identity on the port for clients, and not even asked for", func(t *testing.T) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(the.hub.state, "agent-managed", "tls.crt"), filepath.Join(the.hub.state, "agent-managed", "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		asked := false
		client, done := the.hub.client()
		defer done()
		client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &pair, nil
		}
		for _, path := range []string{"/managed/api", "/culvert.v1.TunnelService/Connect"} {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+the.hub.addr+path, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[string]int{"/managed/api": 401}[path]; resp.StatusCode != want && (want != 0 || resp.StatusCode != 400) {
				t.Errorf("%s: %d", path, resp.StatusCode)
			}
		}
		if asked {
			t.Error("the hub asked a client for a certificate")
		}
	})
}

// startBadAgent runs an agent that cannot connect until the end of the test.
func startBadAgent(t *testing.T, name string, args []string) *testbed.Process {
	t.Helper()
	agent, err := testbed.StartProcess(t.Context(), testbed.ProcessConfig{
		Name: name, Path: bin("culvert-agent"), Args: args, LogDir: testbed.Dir(), Env: processEnv(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return agent
}
