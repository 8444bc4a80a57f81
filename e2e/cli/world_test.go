package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// rules keep mallory away from every cluster.
const rules = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: mallory, effect: deny, users: [mallory], kubernetes: [{verbs: ["*"]}], tcp: [{hosts: ["*"], ports: ["*"]}]}
- {name: others, effect: allow, kubernetes: [{verbs: ["*"]}], tcp: [{hosts: ["*"], ports: ["*"]}]}
`

// authentication is kube-apiserver's configuration of issuers.
const authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
`

// issuer is one of them.
const issuer = `- issuer:
    url: %s
    audiences: [culvert]
    certificateAuthority: |
%s
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
`

// world is a hub that knows callers by token and by a provider, a real cluster with an
// agent, and a cluster whose agent is away.
type world struct {
	bed     *testbed.Bed
	managed *testbed.Cluster

	port, unused *testbed.Port
	hub, agent   *testbed.Process
	state        string
	// provider stays, and forgetful has lost its memory after one login.
	provider, forgetful *provider
	// tokens by name, and the files that have them.
	tokens map[string]string
}

// The clusters.
const (
	connected = "edge-1"
	away      = "edge-away"
)

func newWorld(ctx context.Context) (_ *world, err error) {
	dir := testbed.Dir()
	w := &world{state: filepath.Join(dir, "hub"), tokens: map[string]string{"ada": rand.Text(), "alice": rand.Text(), "mallory": rand.Text()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	for name, p := range map[string]**provider{"main": &w.provider, "forgetful": &w.forgetful} {
		if *p, err = newProvider(name); err != nil {
			return nil, err
		}
		if err := (*p).start(ctx); err != nil {
			return nil, err
		}
	}
	lines := ""
	for name, token := range w.tokens {
		lines += token + "," + name + "," + name + "-uid\n"
		if err := os.WriteFile(w.tokenFile(name), []byte(token+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(
		os.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH")), os.Setenv("HOME", dir),
		os.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config")), os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache")),
		os.Setenv("GORACE", "atexit_sleep_ms=0"), os.Setenv("NO_PROXY", "*"), os.Unsetenv("KUBECONFIG"),
		os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(lines), 0o600),
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(rules), 0o600),
		os.WriteFile(filepath.Join(dir, "authentication.yaml"), w.authentication(), 0o600),
		os.WriteFile(filepath.Join(dir, "hub.yaml"), []byte("admins: {users: [ada]}\n"), 0o600),
		os.Mkdir(filepath.Join(dir, "k"), 0o700),
	); err != nil {
		return nil, err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: filepath.Join(dir, "k"), Servers: servers}); err != nil {
		return nil, err
	}
	if w.managed, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: "managed"}); err != nil {
		return nil, err
	}
	return w, w.startHub(ctx, dir)
}

func (w *world) authentication() []byte {
	text := []byte(authentication)
	for _, p := range []*provider{w.provider, w.forgetful} {
		text = fmt.Appendf(text, issuer, p.issuer, "      "+strings.ReplaceAll(strings.TrimSpace(string(p.ca)), "\n", "\n      "))
	}
	return text
}

// startHub starts the hub and the one agent, and lets the other one join and not run.
func (w *world) startHub(ctx context.Context, dir string) (err error) {
	for _, p := range []**testbed.Port{&w.port, &w.unused} {
		if *p, err = testbed.ReservePort(nil, testbed.HubAddress); err != nil {
			return err
		}
	}
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"), LogDir: dir,
		Args: []string{
			"--config", filepath.Join(dir, "hub.yaml"), "--listen", w.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--state", w.state,
			"--token-file", filepath.Join(dir, "tokens.csv"), "--authentication-config", filepath.Join(dir, "authentication.yaml"),
			"--policy", filepath.Join(dir, "policy.yaml"), "--log-level", "debug", "--drain-timeout", "1s",
		},
		Ready: func(ctx context.Context) error { return get(ctx, w.url()+"/-/readyz", w.hubCA()) },
	})
	if err != nil {
		return err
	}
	kubeconfig, err := w.managed.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	for _, cluster := range []string{connected, away} {
		made, err := culvert(ctx, nil, "token", "create", "--state", w.state, "--cluster", cluster)
		fields := strings.Fields(made.stdout)
		if err != nil || len(fields) == 0 {
			return fmt.Errorf("join token: %w: %+v", err, made)
		}
		joined, err := run(ctx, nil, "", "culvert-agent", "join", "--token", fields[len(fields)-1], "--state", filepath.Join(dir, cluster), "--enrol-only")
		if err != nil || joined.code != 0 {
			return fmt.Errorf("join: %w: %+v", err, joined)
		}
	}
	w.agent, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent", Path: bin("culvert-agent"), LogDir: dir,
		Args: []string{"--state", filepath.Join(dir, connected), "--kubeconfig", kubeconfig, "--log-level", "debug", "--drain-timeout", "1s"},
		Ready: func(ctx context.Context) error {
			got, err := culvert(ctx, w.as("alice"), "clusters", "get", connected)
			if err == nil && !strings.Contains(got.stdout, "connected") {
				err = fmt.Errorf("%+v", got)
			}
			return err
		},
	})
	return err
}

func (w *world) url() string   { return "https://" + w.port.Addr() }
func (w *world) hubCA() string { return filepath.Join(w.state, "pki", "serving-ca.crt") }

func (w *world) tokenFile(name string) string { return filepath.Join(testbed.Dir(), name+".token") }

// as is the environment of somebody who calls the hub.
func (w *world) as(name string) []string {
	return []string{"CULVERT_HUB=" + w.url(), "CULVERT_HUB_CA=" + w.hubCA(), "CULVERT_TOKEN_FILE=" + w.tokenFile(name)}
}

func (w *world) stop() error {
	var errs []error
	for _, p := range []*testbed.Process{w.agent, w.hub} {
		if p != nil {
			errs = append(errs, p.Stop(context.Background()))
		}
	}
	for _, p := range []*provider{w.provider, w.forgetful} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	for _, p := range []*testbed.Port{w.port, w.unused} {
		if p != nil {
			p.Close()
		}
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	return errors.Join(errs...)
}

// leaked looks for the callers' tokens in every log.
func (w *world) leaked() error {
	logs, err := filepath.Glob(filepath.Join(testbed.Dir(), "*.log"))
	if err != nil || len(logs) < 2 {
		return fmt.Errorf("logs: %q, %w", logs, err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, token := range w.tokens {
			if strings.Contains(string(text), token) {
				return fmt.Errorf("the token of %s is in %s", name, path)
			}
		}
		if strings.Contains(string(text), "DATA RACE") {
			return fmt.Errorf("a data race is in %s", path)
		}
	}
	return nil
}

// get makes a request that must be answered with 200.
func get(ctx context.Context, url, ca string) error {
	pool := x509.NewCertPool()
	text, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}

// provider is a process that is an OpenID Connect provider, in memory.
type provider struct {
	issuer, caFile string
	ca             []byte

	port    *testbed.Port
	process *testbed.Process
	config  testbed.ProcessConfig
}

func newProvider(name string) (*provider, error) {
	port, err := testbed.ReservePort(nil, loopback)
	if err != nil {
		return nil, err
	}
	base := filepath.Join(testbed.Dir(), "provider-"+name)
	p := &provider{issuer: "https://" + port.Addr(), caFile: base + ".crt", port: port}
	if p.ca, err = selfSigned(base+".crt", base+".key"); err != nil {
		port.Close()
		return nil, err
	}
	p.config = testbed.ProcessConfig{
		Name: "provider-" + name, Path: bin("oidc"), LogDir: testbed.Dir(),
		Args: []string{"--listen", port.Addr(), "--cert", base + ".crt", "--key", base + ".key"},
		Ready: func(ctx context.Context) error {
			return get(ctx, p.issuer+"/.well-known/openid-configuration", p.caFile)
		},
	}
	return p, nil
}

func (p *provider) start(ctx context.Context) (err error) {
	p.process, err = testbed.StartProcess(ctx, p.config)
	return err
}

func (p *provider) stop() error {
	defer p.port.Close()
	if p.process == nil {
		return nil
	}
	return p.process.Stop(context.Background())
}

// selfSigned writes a certificate for the loopback that verifies itself.
func selfSigned(certFile, keyFile string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "provider"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{loopback.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return text, errors.Join(os.WriteFile(certFile, text, 0o600), os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}
