package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// provider is a process that is an OpenID Connect provider.
type provider struct {
	// issuer is its URL, ca the PEM text of what verifies it.
	issuer string
	ca     []byte

	port    *testbed.Port
	config  testbed.ProcessConfig
	process *testbed.Process // nil until it is started
	client  *http.Client
}

// newProvider makes a provider that is not started yet: nothing answers at its
// address.
func newProvider(name string) (*provider, error) {
	port, err := testbed.ReservePort(nil, loopback)
	if err != nil {
		return nil, err
	}
	p := &provider{issuer: "https://" + port.Addr(), port: port}
	cert, key := filepath.Join(testbed.Dir(), name+".crt"), filepath.Join(testbed.Dir(), name+".key")
	if p.ca, err = selfSigned(cert, key); err != nil {
		port.Close()
		return nil, fmt.Errorf("provider %s: %w", name, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.ca)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
	p.config = testbed.ProcessConfig{
		Name: "provider-" + name, Path: bin("provider"), Args: []string{"--listen", port.Addr(), "--cert", cert, "--key", key, "--signing-key", filepath.Join(testbed.Dir(), name+".jwk")},
		LogDir: testbed.Dir(), Ready: p.ready,
	}
	return p, nil
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
	return text, errors.Join(os.WriteFile(certFile, text, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

func (p *provider) start(ctx context.Context) (err error) {
	p.process, err = testbed.StartProcess(ctx, p.config)
	return err
}

func (p *provider) stop() error {
	var err error
	if p.process != nil {
		err = p.process.Stop(context.Background())
	}
	p.port.Close()
	return err
}

// unreached returns a good token of a provider that was never there: another one has signed
// it with its key, at another address, so that nobody could get to know the key.
func (p *provider) unreached(ctx context.Context) (token string, err error) {
	other, err := newProvider(p.config.Name + "-elsewhere")
	if err != nil {
		return "", err
	}
	signing := len(other.config.Args) - 1
	other.config.Args[signing] = p.config.Args[signing]
	if err = other.start(ctx); err == nil {
		token, err = other.token(ctx, "", claims{"iss": p.issuer})
	}
	return token, errors.Join(err, other.stop())
}

func (p *provider) ready(ctx context.Context) error {
	_, err := p.ask(ctx, http.MethodGet, "/.well-known/openid-configuration", nil)
	return err
}

func (p *provider) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.issuer+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, err
}

// claims are those of an ID token.
type claims = map[string]any

// token returns a token with these claims over the usual ones of a good token.
// With a key "forged" its signature is of a key that the provider does not
// publish. It is a secret from then on.
func (p *provider) token(ctx context.Context, key string, change claims) (string, error) {
	all := claims{
		"iss": p.issuer, "aud": "culvert", "sub": "olga-sub", "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"email": "olga@example.com", "email_verified": true, "teams": []string{"dev"},
	}
	for name, value := range change {
		if value == nil {
			delete(all, name)
			continue
		}
		all[name] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	token, err := p.ask(ctx, http.MethodPost, "/token?key="+key, text)
	if err != nil {
		return "", fmt.Errorf("provider: token: %w", err)
	}
	the.plant("a token of the provider", string(token))
	return string(token), nil
}
