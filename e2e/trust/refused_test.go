package trust

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

// TestRefusedTokens logs, for each attempt, what the hub and the client say.
func TestRefusedTokens(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	h, log := the.hub, the.hub.process.Log()
	attempt := func(t *testing.T, name string, args ...string) (dir, said string) {
		t.Helper()
		dir = agentDir("refused-" + name)
		_, err := run(ctx, "culvert-agent", append([]string{"join", "--state", dir, "--enrol-only"}, args...)...)
		if err == nil {
			t.Fatal("it joined")
		}
		check(t, the.leaked(map[string]string{"what the client says": err.Error()}))
		return dir, err.Error()
	}
	for _, c := range []struct {
		id, name string
		// args makes the command line of the second program.
		args func(t *testing.T) []string
		// client and hub are what they say; an empty hub means that it never hears of
		// it.
		client, hub []string
	}{
		{
			id: "K6", name: "reused",
			args: func(t *testing.T) []string {
				t.Helper()
				_, token := h.token(ctx, t, "reused")
				_, err := run(ctx, "culvert-agent", "join", "--token", token, "--state", agentDir("reused"), "--enrol-only")
				must(t, err)
				return []string{"--token", token}
			},
			client: []string{"used"}, hub: []string{"used"},
		},
		{
			id: "K6", name: "expired",
			args: func(t *testing.T) []string {
				t.Helper()
				_, token := h.token(ctx, t, "expired", "--ttl", "1s")
				made := time.Now()                                          // or before
				<-time.After(time.Until(made.Add(2500 * time.Millisecond))) // the hub's clock is this one
				return []string{"--token", token}
			},
			client: []string{"expired"}, hub: []string{"expired"},
		},
		{
			id: "K6", name: "revoked",
			args: func(t *testing.T) []string {
				t.Helper()
				_, token := h.token(ctx, t, "revoked")
				_, err := h.cli(ctx, "token", "revoke", tokenParts(t, token).GetId())
				must(t, err)
				return []string{"--token", token}
			},
			client: []string{"revoked"}, hub: []string{"revoked"},
		},
		{
			id: "K6", name: "cut off by one character",
			args: func(t *testing.T) []string {
				t.Helper()
				_, token := h.token(ctx, t, "cut")
				return []string{"--token", token[:len(token)-1]}
			},
			client: []string{"join token: the text is damaged: a character is missing or changed: copy all of the line that culvert token create printed"},
		},
		{
			id: "K6", name: "changed in one character",
			args: func(t *testing.T) []string {
				t.Helper()
				_, token := h.token(ctx, t, "changed")
				i, with := len(token)/2, "A"
				if token[i] == 'A' {
					with = "B"
				}
				return []string{"--token", token[:i] + with + token[i+1:]}
			},
			client: []string{"join token: the text is damaged"},
		},
		{
			id: "K6", name: "of another hub",
			args: func(t *testing.T) []string {
				t.Helper()
				other := startHub(ctx, t, "other", hubConfig{})
				_, token := other.token(ctx, t, "foreign")
				return []string{"--token", token, "--hub", h.addr()}
			},
			client: []string{"the token is of another hub, or something between reads the connection"}, hub: []string{"tls handshake refused"},
		},
	} {
		t.Run(c.id+": a join token that is "+c.name+" gives no certificate, and both sides say why", func(t *testing.T) {
			args := c.args(t)
			skip := len(logLines(t, log, ""))
			dir, said := attempt(t, strings.Fields(c.name)[0], args...)
			t.Logf("client: %s", said)
			for _, part := range c.client {
				if !strings.Contains(said, part) {
					t.Errorf("the client does not say %q", part)
				}
			}
			if _, err := leafOf(filepath.Join(dir, "tls.crt")); err == nil {
				t.Error("there is a certificate")
			}
			if len(c.hub) > 0 {
				t.Logf("hub: %s", awaitLine(ctx, t, log, skip, c.hub...))
				return
			}
			for _, line := range logLines(t, log, "")[skip:] {
				if strings.Contains(line, "enrol") || strings.Contains(line, "handshake") {
					t.Errorf("the hub heard of it: %s", line)
				}
			}
		})
	}

	t.Run("K6,N7: a token for one cluster gives no certificate of another", func(t *testing.T) {
		_, token := h.token(ctx, t, "mine")
		skip := len(logLines(t, log, ""))
		der, _ := csr(t, &x509.CertificateRequest{})
		_, err := h.rawEnrol(ctx, &culvertv1.EnrollRequest{
			Credential: &culvertv1.EnrollRequest_JoinToken{JoinToken: tokenParts(t, token)}, Csr: der, Cluster: "yours",
		})
		if err == nil || !strings.Contains(err.Error(), "mine") && !strings.Contains(err.Error(), "cluster") {
			t.Fatalf("the hub answered %v", err)
		}
		t.Logf("client: %v", err)
		t.Logf("hub: %s", awaitLine(ctx, t, log, skip, "yours"))
		// The token is not used up by that.
		_, err = run(ctx, "culvert-agent", "join", "--token", token, "--state", agentDir("mine"), "--enrol-only")
		check(t, err)
	})
}

func TestCertificateRequests(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	h, log := the.hub, the.hub.process.Log()
	for i, c := range []struct {
		name    string
		request *x509.CertificateRequest
		ignored string
	}{
		{"another cluster's name", &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "managed", Organization: []string{"system:masters"}},
			URIs:    spiffe("spiffe://culvert.local/cluster/managed"),
		}, "spiffe"},
		{"extra names", &x509.CertificateRequest{
			DNSNames: []string{"hub.example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, EmailAddresses: []string{"a@example.com"},
			URIs: []*url.URL{{Scheme: "https", Host: "example.com"}},
		}, "hub.example.com"},
		{"CA:true", &x509.CertificateRequest{
			ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}},
		}, "basic"},
	} {
		t.Run("K6,N7: a request for "+c.name+" gives a certificate of the token's cluster and nothing else, and a warning at the hub", func(t *testing.T) {
			cluster := fmt.Sprintf("csr%d", i)
			_, token := h.token(ctx, t, cluster)
			skip := len(logLines(t, log, ""))
			der, _ := csr(t, c.request)
			resp, err := h.rawEnrol(ctx, &culvertv1.EnrollRequest{
				Credential: &culvertv1.EnrollRequest_JoinToken{JoinToken: tokenParts(t, token)}, Csr: der,
			})
			must(t, err)
			cert := parseLeaf(t, resp.GetIssued().GetCertificateChain())
			if cert.Subject.String() != "CN="+cluster+",O=Culvert" || cert.IsCA || !cert.BasicConstraintsValid ||
				len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://culvert.local/cluster/"+cluster ||
				len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 ||
				len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || cert.KeyUsage&x509.KeyUsageCertSign != 0 {
				t.Errorf("the certificate is for %s, CA %v, URIs %v, names %v %v %v, usage %v %v", cert.Subject, cert.IsCA, cert.URIs,
					cert.DNSNames, cert.IPAddresses, cert.EmailAddresses, cert.KeyUsage, cert.ExtKeyUsage)
			}
			t.Logf("hub: %s", awaitLine(ctx, t, log, skip, "level=WARN", cluster, "ignored"))
		})
	}
}

// refusedCertificate is one that does not get onto the port for agents.
type refusedCertificate struct {
	id, name string
	make     func(t *testing.T) *tls.Config
	reason   string // in the hub's log
}

func TestRefusedCertificates(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	h, log := the.hub, the.hub.process.Log()
	by := func(role string, change func(*x509.Certificate)) func(*testing.T) *tls.Config {
		return func(t *testing.T) *tls.Config {
			t.Helper()
			signer := authority{}
			var err error
			switch role {
			case "":
			case "foreign":
				signer, err = newAuthority("culvert agents CA")
			default:
				signer, err = h.authorityOf(role)
			}
			must(t, err)
			template := agentTemplate("edge")
			if change != nil {
				change(template)
			}
			cert, err := signer.sign(template)
			must(t, err)
			return h.tunnelConfig(cert)
		}
	}
	const untrusted = "signed by a CA that is not trusted here"
	for _, c := range []refusedCertificate{
		{"N7", "a user's certificate", by("users", func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: "ada"} }), untrusted},
		{"N7", "a certificate of the users CA with an agent's name", by("users", nil), untrusted},
		{"N7", "a peer's certificate", by("peers", func(c *x509.Certificate) { c.URIs = spiffe("spiffe://culvert.local/hub/one") }), untrusted},
		{"N7", "a certificate of the peers CA with an agent's name", by("peers", nil), untrusted},
		{"N7", "a certificate of the serving CA with an agent's name", by("serving", nil), untrusted},
		{"N7", "a self-signed certificate", by("", nil), "signed by itself and not trusted here"},
		{"N7", "a certificate of a CA with the same name", by("foreign", nil), untrusted},
		{"N7", "an expired certificate", by("agents", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired at"},
		{"N7", "a certificate of the right CA without a SPIFFE name", by("agents", func(c *x509.Certificate) { c.URIs = nil }), "no URI subject alternative name"},
		{"D6", "TLS 1.2", func(t *testing.T) *tls.Config {
			t.Helper()
			cfg := by("agents", nil)(t)
			cfg.MaxVersion = tls.VersionTLS12
			return cfg
		}, "unsupported versions"},
	} {
		t.Run(c.id+": "+c.name+" gets no tunnel, on either port, and the hub's log says why", func(t *testing.T) {
			cfg := c.make(t)
			for _, addr := range []string{h.addr(), h.agent.Addr()} {
				skip := len(logLines(t, log, ""))
				local, err := h.shakeHands(t, addr, cfg)
				if !isAlert(err) {
					t.Errorf("the connection ended with %v, want an alert", err)
				}
				line := awaitLine(ctx, t, log, skip, "remote="+local+" ", "tls handshake refused", c.reason)
				t.Logf("client: %v; hub: %s", err, line)
			}
		})
	}

	t.Run("N7,O4: an agent's or a peer's certificate on the port for users gives no identity", func(t *testing.T) {
		for _, role := range []string{"agents", "peers", "serving"} {
			cert := by(role, func(c *x509.Certificate) { c.Subject.Organization = []string{"system:masters"} })(t).Certificates[0]
			status, body, err := h.getAs(ctx, "/edge/api", "", cert)
			t.Logf("%s: %d %s %v", role, status, strings.TrimSpace(body), err)
			if err == nil && status != 401 {
				t.Errorf("%s: %d, want 401", role, status)
			}
			if err != nil && !isAlert(err) {
				t.Errorf("%s: %v", role, err)
			}
		}
	})
}

// TestClientCertificates is about a hub that asks callers for certificates.
func TestClientCertificates(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 2*time.Minute)
	users, err := newAuthority("the users' CA")
	must(t, err)
	file := filepath.Join(t.TempDir(), "users-ca.crt")
	must(t, writeFile(file, users.pem()))
	h := startHub(ctx, t, "mtls", hubConfig{yaml: "tls: {clientCA: " + file + "}\n"})
	sign := func(t *testing.T, by authority, change func(*x509.Certificate)) tls.Certificate {
		t.Helper()
		template := agentTemplate("edge")
		template.Subject = pkix.Name{CommonName: "grace", Organization: []string{"dev"}}
		template.URIs = nil
		if change != nil {
			change(template)
		}
		cert, err := by.sign(template)
		must(t, err)
		return cert
	}
	t.Run("D16: a caller is who their certificate says, where a CA for that is set, and needs none beside a token", func(t *testing.T) {
		skip := len(logLines(t, h.process.Log(), ""))
		if status, body, err := h.getAs(ctx, "/nosuch/version", "", sign(t, users, nil)); status != 404 {
			t.Errorf("a user's certificate: %d %s %v, want 404", status, body, err)
		}
		awaitLine(ctx, t, h.process.Log(), skip, "user=grace")
		if status, body, err := h.get(ctx, "/nosuch/version"); status != 404 {
			t.Errorf("a token: %d %s %v, want 404", status, body, err)
		}
		if status, body, err := h.getAs(ctx, "/nosuch/version", ""); status != 401 {
			t.Errorf("neither: %d %s %v, want 401", status, body, err)
		}
	})
	t.Run("N7,D16: certificates of agents, peers and strangers, and expired ones, are nobody there", func(t *testing.T) {
		own := func(role string) authority {
			signer, err := h.authorityOf(role)
			must(t, err)
			return signer
		}
		stranger, err := newAuthority("the users' CA")
		must(t, err)
		agent := func(c *x509.Certificate) { c.URIs = spiffe("spiffe://culvert.local/cluster/edge") }
		for name, cert := range map[string]tls.Certificate{
			"an agent's":            sign(t, own("agents"), agent),
			"a peer's":              sign(t, own("peers"), nil),
			"the hub's users CA":    sign(t, own("users"), nil),
			"a CA of the same name": sign(t, stranger, nil),
			"self-signed":           sign(t, authority{}, nil),
			"expired":               sign(t, users, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
			"for servers":           sign(t, users, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			"a CA's own":            sign(t, users, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		} {
			skip := len(logLines(t, h.process.Log(), ""))
			// Without a request: that would race with the alert.
			local, err := h.shakeHands(t, h.addr(), &tls.Config{
				RootCAs: h.roots(), ServerName: "localhost", NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{cert},
			})
			if !isAlert(err) {
				t.Errorf("%s: %v, want an alert", name, err)
			}
			t.Logf("%s: client: %v; hub: %s", name, err, awaitLine(ctx, t, h.process.Log(), skip, "remote="+local+" ", "tls handshake refused", "client certificate"))
		}
	})
	t.Run("N7: and the other way round: a caller's certificate gets no tunnel", func(t *testing.T) {
		cert := sign(t, users, func(c *x509.Certificate) { c.URIs = spiffe("spiffe://culvert.local/cluster/edge") })
		if _, err := h.shakeHands(t, h.addr(), h.tunnelConfig(cert)); !isAlert(err) {
			t.Errorf("the connection ended with %v, want an alert", err)
		}
	})
}

// parseLeaf returns the first certificate of a PEM text.
func parseLeaf(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tls.crt")
	must(t, writeFile(file, text))
	cert, err := leafOf(file)
	must(t, err)
	return cert
}
