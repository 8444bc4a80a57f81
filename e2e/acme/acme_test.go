// Package acme tests that a hub gets its serving certificate from a real ACME
// server, Let's Encrypt's Pebble, which connects to the hub to prove the name.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "hub.example.com"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bed is an ACME server, a DNS server for it, and a hub, all on loopback.
type bed struct {
	t                     *testing.T
	dir                   string
	acme, manage, hubPort *testbed.Port
	client                *http.Client // trusts the ACME server
	close                 func()
	root                  []byte // what certificates of the ACME server lead to, PEM
	server                *testbed.Process
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir()}
	building, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // where nothing is compiled yet
	defer cancel()
	build := exec.CommandContext(building, "go", "build", "-o", b.dir+string(filepath.Separator),
		"github.com/letsencrypt/pebble/v2/cmd/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pebble: %v: %s", err, out)
	}
	_, err := testbed.CulvertBinaries(building, b.dir, os.Stderr)
	must(t, err)
	b.acme, b.manage, b.hubPort = b.port(), b.port(), b.port()
	b.certificate()
	return b
}

// port reserves one for the time of the test.
func (b *bed) port() *testbed.Port {
	b.t.Helper()
	p, err := testbed.ReservePort(nil, netip.MustParseAddr("127.0.0.1"))
	must(b.t, err)
	b.t.Cleanup(p.Close)
	return p
}

func (b *bed) file(name string) string { return filepath.Join(b.dir, name) }

// certificate makes the one that the ACME server itself shows.
func (b *bed) certificate() {
	b.t.Helper()
	auth, err := pki.LoadOrCreate(b.dir, pki.RoleServing)
	must(b.t, err)
	key, err := pki.NewKey()
	must(b.t, err)
	cert, err := auth.IssueServing(key.Public(), []string{"127.0.0.1"}, time.Hour)
	must(b.t, err)
	encoded, err := pki.EncodeKey(key)
	must(b.t, err)
	must(b.t, errors.Join(os.WriteFile(b.file("acme.crt"), cert, 0o600), os.WriteFile(b.file("acme.key"), encoded, 0o600)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: auth.Pool(), MinVersion: tls.VersionTLS12}}
	b.client, b.close = &http.Client{Transport: transport, Timeout: 30 * time.Second}, transport.CloseIdleConnections
	b.t.Cleanup(b.close)
}

// start runs the DNS server and the ACME server.
func (b *bed) start(ctx context.Context) {
	b.t.Helper()
	dns, control := b.port(), b.port()
	b.process(ctx, testbed.ProcessConfig{
		Name: "dns", Path: b.file("pebble-challtestsrv"), LogDir: b.dir,
		Args: []string{
			"-dnsserver", dns.Addr(), "-management", control.Addr(), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
			"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
		},
	})
	_, port, err := net.SplitHostPort(b.hubPort.Addr())
	must(b.t, err)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": b.acme.Addr(), "managementListenAddress": b.manage.Addr(),
		"certificate": b.file("acme.crt"), "privateKey": b.file("acme.key"),
		"tlsPort": json.Number(port), "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 7776000}},
	}})
	must(b.t, err)
	must(b.t, os.WriteFile(b.file("pebble.json"), config, 0o600))
	b.server = b.process(ctx, testbed.ProcessConfig{
		Name: "pebble", Path: b.file("pebble"), LogDir: b.dir,
		Args: []string{"-config", b.file("pebble.json"), "-dnsserver", dns.Addr()},
		Env:  []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"},
		Ready: func(ctx context.Context) error {
			b.root, err = b.get(ctx, "https://"+b.manage.Addr()+"/roots/0")
			return err
		},
	})
	must(b.t, os.WriteFile(b.file("public-ca.crt"), b.root, 0o600))
}

func (b *bed) process(ctx context.Context, cfg testbed.ProcessConfig) *testbed.Process {
	b.t.Helper()
	p, err := testbed.StartProcess(ctx, cfg)
	must(b.t, err)
	b.t.Cleanup(func() { _ = p.Stop(context.Background()) }) // it may have been stopped
	return p
}

func (b *bed) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, err
}

// hub starts one that gets its certificate by ACME.
func (b *bed) hub(ctx context.Context, more ...string) *testbed.Process {
	b.t.Helper()
	must(b.t, os.WriteFile(b.file("tokens.csv"), []byte("tok-ada,ada,1\n"), 0o600))
	return b.process(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: b.file("culvert-hub"), LogDir: b.dir,
		Args: append([]string{
			"--listen", b.hubPort.Addr(), "--state", b.file("state"), "--token-file", b.file("tokens.csv"), "--drain-timeout", "1s",
			"--acme-host", host, "--acme-accept-terms", "--acme-directory", "https://" + b.acme.Addr() + "/dir",
			"--acme-ca", b.file("serving-ca.crt"), "--tls-ca", b.file("public-ca.crt"),
		}, more...),
		Ready: func(context.Context) error {
			_, err := b.shown("localhost")
			return err
		},
	})
}

// shown returns the certificate that the hub shows for a name, whoever signed it,
// and its further chain.
func (b *bed) shown(name string) ([]*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", b.hubPort.Addr(), &tls.Config{ServerName: name, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates, conn.Close()
}

// public is an error unless the hub's certificate is of the ACME server's CA.
func (b *bed) public(context.Context) error {
	chain, err := b.shown(host)
	if err != nil {
		return err
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: host}
	options.Roots.AppendCertsFromPEM(b.root)
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err = chain[0].Verify(options)
	return err
}

func TestCertificate(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b.start(ctx)
	hub := b.hub(ctx)
	t.Run("P5: a hub gets its certificate from an ACME server, which reaches it on its own port", func(t *testing.T) {
		must(t, testbed.Poll(ctx, "the certificate", b.public))
		log, err := os.ReadFile(hub.Log())
		must(t, err)
		if !strings.Contains(string(log), "got a serving certificate by acme") || !strings.Contains(string(log), host) {
			t.Errorf("log: %s", log)
		}
	})
	t.Run("D16,D20: a name without a certificate of ACME gets the hub's own, one that nobody has is refused, and no challenge is answered for it", func(t *testing.T) {
		chain, err := b.shown("localhost")
		if err != nil || !strings.Contains(chain[0].Issuer.String(), "Culvert serving CA") {
			t.Errorf("%v, %v", chain, err)
		}
		if chain, err := b.shown("other.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("a name that the hub does not have: %v, %v", chain, err)
		}
		_, err = tls.Dial("tcp", b.hubPort.Addr(), &tls.Config{ServerName: "other.example.com", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
		if err == nil {
			t.Error("a challenge was answered")
		}
	})
	t.Run("P16: a join token pins the CA of the public certificate that is set", func(t *testing.T) {
		out, err := exec.CommandContext(ctx, b.file("culvert"), "token", "create", "--state", b.file("state"), "--cluster", "edge-1", "-o", "json").CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"hub": "`+host+":") || strings.Contains(string(out), "warnings") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("P5: a restarted hub serves the certificate that it has, while the ACME server is away", func(t *testing.T) {
		before, err := b.shown(host)
		must(t, err)
		must(t, errors.Join(hub.Stop(ctx), b.server.Stop(ctx)))
		must(t, hub.Start(ctx))
		must(t, testbed.Poll(ctx, "the certificate", b.public))
		after, err := b.shown(host)
		if err != nil || !after[0].Equal(before[0]) {
			t.Errorf("another certificate, %v", err)
		}
	})
	t.Run("P5: a hub whose ACME server is away starts, serves its own certificate, and says why", func(t *testing.T) {
		must(t, hub.Stop(ctx))
		must(t, os.RemoveAll(b.file("state")))
		b.hub(ctx)
		must(t, testbed.Poll(ctx, "the reason in the log", func(context.Context) error {
			log, err := os.ReadFile(hub.Log())
			if err == nil && !strings.Contains(string(log), "cannot get a serving certificate by acme") {
				err = errors.New("not there")
			}
			return err
		}))
		chain, err := b.shown(host)
		if err != nil || !strings.Contains(chain[0].Issuer.String(), "Culvert serving CA") {
			t.Errorf("%v, %v", chain, err)
		}
	})
}
