package pki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// world is a hub's authorities and its serving certificate.
type world struct {
	agents, serving *Authority
	pair            *KeyPair
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{agents: newAuthority(t, RoleAgents), serving: newAuthority(t, RoleServing)}
	pair, err := SelfServing(w.serving, t.TempDir(), []string{"hub.example.com", "127.0.0.1", "::1"}, new(logLines).option())
	if err != nil {
		t.Fatal(err)
	}
	w.pair = pair
	return w
}

func TestHandshakeWithAGoodAgent(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"hub.example.com", "127.0.0.1", "::1"} {
		client := agent(agentPair(t, w.agents, "edge-1", time.Hour), w.serving, name)
		atServer, atClient := handshake(t, hub(w.pair, w.agents), client)
		wantThrough(t, name, atServer, atClient)
		cluster, err := VerifyAgent(w.agents, trustDomain)(atServer.state)
		if err != nil || cluster != "edge-1" {
			t.Errorf("%s: cluster %q, %v", name, cluster, err)
		}
	}
}

func TestHandshakeWithStandardVerification(t *testing.T) {
	w := newWorld(t)
	client := &tls.Config{ServerName: "hub.example.com", RootCAs: w.serving.Pool(), Certificates: []tls.Certificate{agentPair(t, w.agents, "edge-1", 0)}}
	server := hub(w.pair, w.agents)
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, w.agents.Pool()
	atServer, atClient := handshake(t, server, client)
	wantThrough(t, "crypto/tls judges both chains as well", atServer, atClient)
}

func TestHandshakeRefusesAgents(t *testing.T) {
	w := newWorld(t)
	foreign := newAuthority(t, RoleAgents)
	now := time.Now()
	// with returns an agent's certificate of the right authority, changed.
	with := func(edit func(*x509.Certificate)) tls.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7),
			Subject:      pkix.Name{CommonName: "edge-1"},
			NotBefore:    now.Add(-time.Hour),
			NotAfter:     now.Add(time.Hour),
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			URIs:         []*url.URL{agentURL(trustDomain, "edge-1")},
		}
		edit(template)
		return signed(t, w.agents, template)
	}
	past := func(hours int) time.Time {
		return time.Date(2024, 3, 1, hours, 0, 0, 0, time.UTC)
	}
	tests := []struct {
		name string
		cert tls.Certificate
		want []string
	}{
		{
			"of a foreign CA", agentPair(t, foreign, "edge-1", 0),
			[]string{"it is signed by a CA that is not trusted here: \"CN=Culvert agents CA "},
		},
		{
			"expired", with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = past(0), past(24) }),
			[]string{"agent certificate: expired at 2024-03-02T00:00:00Z (valid from 2024-03-01T00:00:00Z), replace it"},
		},
		{
			"not valid yet", with(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }),
			[]string{"not valid before " + timestamp(now.Add(time.Minute)) + ": check the clocks"},
		},
		{
			"serving certificate of the hub", *w.pair.get(),
			[]string{"it is for TLS servers (serverAuth), want TLS clients (clientAuth)", "it is signed by a CA that is not trusted here"},
		},
		{
			"serving certificate of the right CA", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			[]string{"agent certificate: it is for TLS servers (serverAuth), want TLS clients (clientAuth)"},
		},
		{
			"usage unknown here", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }),
			[]string{"it is for extended key usage 3, want TLS clients (clientAuth)"},
		},
		{
			"CA in itself", with(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
			[]string{"agent certificate: it is the certificate of an authority"},
		},
		{
			"no URI", with(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"edge-1"} }),
			[]string{"agent certificate: no URI subject alternative name, want spiffe://culvert.local/cluster/<name>"},
		},
		{
			"other trust domain", with(func(c *x509.Certificate) { c.URIs = []*url.URL{agentURL("example.com", "edge-1")} }),
			[]string{`agent certificate: URI subject alternative name "spiffe://example.com/cluster/edge-1": the trust domain is "example.com", want culvert.local`},
		},
		{
			"two URIs", with(func(c *x509.Certificate) { c.URIs = append(c.URIs, agentURL(trustDomain, "edge-2")) }),
			[]string{"agent certificate: 2 URI subject alternative names, want one"},
		},
		{
			"expired and foreign", signed(t, foreign, &x509.Certificate{
				SerialNumber: big.NewInt(7), NotBefore: past(0), NotAfter: past(1), URIs: []*url.URL{agentURL(trustDomain, "a")},
			}),
			[]string{"expired at 2024-03-01T01:00:00Z", "; it is signed by a CA that is not trusted here"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			atServer, atClient := handshake(t, hub(w.pair, w.agents), agent(test.cert, w.serving, "hub.example.com"))
			wantError(t, test.name, atServer.err, append(test.want, "agent certificate: ")...)
			wantError(t, "the agent is told", atClient.err, "remote error: tls: ")
		})
	}
	t.Run("self-signed", func(t *testing.T) {
		cert := selfSigned(t)
		atServer, _ := handshake(t, hub(w.pair, w.agents), agent(cert, w.serving, "hub.example.com"))
		wantError(t, "self-signed", atServer.err, "agent certificate: it is signed by itself and not trusted here")
	})
	t.Run("none", func(t *testing.T) {
		atServer, _ := handshake(t, hub(w.pair, w.agents), agent(tls.Certificate{}, w.serving, "hub.example.com"))
		wantError(t, "none", atServer.err, "client didn't provide a certificate")
		_, err := VerifyAgent(w.agents, trustDomain)(tls.ConnectionState{})
		wantError(t, "none", err, "agent certificate: none was sent")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		client := agent(agentPair(t, w.agents, "edge-1", 0), w.serving, "hub.example.com")
		client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		atServer, _ := handshake(t, hub(w.pair, w.agents), client)
		wantError(t, "TLS 1.2", atServer.err, "unsupported versions")
	})
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7),
		Subject:      pkix.Name{CommonName: "edge-1"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		URIs:         []*url.URL{agentURL(trustDomain, "edge-1")},
	}
	cert := signedBy(t, template, key, template)
	// A name of its own, signed by the key of the same name.
	return cert
}

func TestHandshakeRefusesHubs(t *testing.T) {
	w := newWorld(t)
	good := agentPair(t, w.agents, "edge-1", 0)
	tests := []struct {
		name   string
		server *KeyPair
		roots  Roots
		ask    string
		want   string
	}{
		{"other name", w.pair, w.serving, "other.example.com", `it is not for "other.example.com" but for "hub.example.com", 127.0.0.1, ::1`},
		{"other address", w.pair, w.serving, "127.0.0.2", `it is not for "127.0.0.2"`},
		{"foreign CA", w.pair, newAuthority(t, RoleServing), "hub.example.com", `it is signed by a CA that is not trusted here: "CN=Culvert serving CA `},
		{"agent as hub", fixedPair(&good), w.agents, "hub.example.com", "it is for TLS clients (clientAuth), want TLS servers (serverAuth); it is not for \"hub.example.com\" but for no DNS name"},
		{"no name", w.pair, w.serving, "", "no server name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client := agent(good, test.roots, test.ask)
			_, atClient := handshake(t, hub(test.server, w.agents), client)
			wantError(t, test.name, atClient.err, "server certificate: ", test.want)
		})
	}
}

func TestCertificateExpiresBetweenHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		client := agent(agentPair(t, w.agents, "edge-1", time.Hour), w.serving, "hub.example.com")
		atServer, atClient := handshake(t, hub(w.pair, w.agents), client)
		wantThrough(t, "in time", atServer, atClient)
		time.Sleep(time.Hour + time.Second)
		end := time.Now().Add(-time.Second)
		again, _ := handshake(t, hub(w.pair, w.agents), client)
		wantError(t, "an hour later", again.err, "agent certificate: expired at "+timestamp(end))
		_, err := VerifyAgent(w.agents, trustDomain)(atServer.state)
		wantError(t, "the state of the old connection", err, "expired at")
	})
}

func TestVerifySeesAnExpiredAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		writeAuthority(t, dir, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now(), time.Now().Add(time.Hour)
		})
		a, err := LoadOrCreate(dir, RoleAgents)
		if err != nil {
			t.Fatal(err)
		}
		cert := signed(t, a, &x509.Certificate{
			SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(time.Minute), NotAfter: time.Now().Add(10 * time.Hour),
			URIs: []*url.URL{agentURL(trustDomain, "edge-1")},
		})
		time.Sleep(2 * time.Hour)
		_, err = VerifyAgent(a, trustDomain)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}})
		wantError(t, "the authority is over", err, `the CA "CN=operator's CA" is valid from 2000-01-01T00:00:00Z to 2000-01-01T01:00:00Z only`)
	})
}

// A session ticket must not outlive the trust in the certificate it was given for.
func TestResumedSessionIsJudgedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		file := filepath.Join(t.TempDir(), "ca.crt")
		write(t, file, w.agents.PEM(), 0o644)
		bundle, err := LoadBundle(file, new(logLines).option())
		if err != nil {
			t.Fatal(err)
		}
		server := hub(w.pair, bundle)
		client := agent(agentPair(t, w.agents, "edge-1", 0), w.serving, "hub.example.com")
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		atServer, atClient := handshake(t, server, client)
		wantThrough(t, "first", atServer, atClient)
		atServer, atClient = handshake(t, server, client)
		wantThrough(t, "resumed", atServer, atClient)
		if !atServer.state.DidResume {
			t.Fatal("the session was not resumed: nothing is shown")
		}
		write(t, file, newAuthority(t, RoleAgents).PEM(), 0o644)
		time.Sleep(checkInterval)
		atServer, _ = handshake(t, server, client)
		wantError(t, "resumed after its CA was removed", atServer.err, "it is signed by a CA that is not trusted here")
	})
}

func TestVerifyNeedsRoots(t *testing.T) {
	w := newWorld(t)
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{w.pair.Leaf()}}
	err := VerifyServer(pool{}, "hub.example.com")(state)
	wantError(t, "no pool would mean the system's", err, "no trusted CA")
}

func TestRolesDoNotStandForEachOther(t *testing.T) {
	w := newWorld(t)
	for _, role := range []string{RolePeers, RoleUsers, RoleServing} {
		t.Run("N7: a certificate of the "+role+" CA that names a cluster is no agent's", func(t *testing.T) {
			cert := signed(t, newAuthority(t, role), &x509.Certificate{
				SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{agentURL(trustDomain, "edge-1")},
			})
			atServer, atClient := handshake(t, hub(w.pair, w.agents), agent(cert, w.serving, "hub.example.com"))
			wantError(t, role, atServer.err, "agent certificate: it is signed by a CA that is not trusted here: \"CN=Culvert "+role+" CA ")
			wantError(t, "the agent is told", atClient.err, "remote error: tls: ")
		})
	}
}
