package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/telemetry"
)

// acmeProtocol is the ALPN name of the challenge tls-alpn-01 (RFC 8737).
const acmeProtocol = acme.ALPNProto

const (
	// acmeFirstRetry and acmeLastRetry bound the waits after a failure: CAs limit
	// failures to a few an hour.
	acmeFirstRetry = time.Minute
	acmeLastRetry  = time.Hour
	// acmeCheck is how often the certificate of the manager, which renews it by
	// itself, is taken over.
	acmeCheck = time.Minute
)

// acmeCertificates gets certificates from a public CA beside the handshakes, so
// that no handshake waits for that CA, and a CA that is away delays nobody. It is
// safe for concurrent use.
type acmeCertificates struct {
	hosts   []string
	manager *autocert.Manager
	client  *http.Client
	cancel  context.CancelFunc // ends requests to the CA
	log     *slog.Logger

	mu    sync.Mutex
	state map[string]*acmeState // by host
}

type acmeState struct {
	cert     *tls.Certificate // nil before the first
	problem  string
	failures uint64
}

func newACME(cfg Config) (*acmeCertificates, error) {
	a := &acmeCertificates{log: cfg.Logger, state: map[string]*acmeState{}}
	for _, host := range cfg.ACME.Hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		a.hosts = append(a.hosts, host)
		a.state[host] = &acmeState{}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if cfg.ACME.CA != "" {
		bundle, err := pki.LoadBundle(cfg.ACME.CA, pki.WithLogger(cfg.Logger), pki.WithName("CA of the acme directory"))
		if err != nil {
			return nil, fmt.Errorf("acme.ca: %w", err)
		}
		transport.TLSClientConfig.RootCAs = bundle.Pool()
	}
	var life context.Context
	life, a.cancel = context.WithCancel(context.Background())
	a.client = &http.Client{Transport: &boundTransport{life: life, inner: transport}, Timeout: time.Minute}
	a.manager = &autocert.Manager{
		Prompt:     autocert.AcceptTOS, // Validate wants acceptTerms
		Cache:      autocert.DirCache(filepath.Join(cfg.State, "acme")),
		HostPolicy: autocert.HostWhitelist(a.hosts...),
		Email:      cfg.ACME.Email,
		Client:     &acme.Client{DirectoryURL: cfg.ACME.Directory, HTTPClient: a.client, UserAgent: "culvert-hub"},
	}
	return a, nil
}

// boundTransport ends requests when a life does: the manager takes no context.
type boundTransport struct {
	life  context.Context
	inner *http.Transport
}

// RoundTrip implements [http.RoundTripper].
func (b *boundTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.life.Err() != nil {
		return nil, b.life.Err()
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(b.life, cancel)
	res, err := b.inner.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	res.Body = &boundBody{ReadCloser: res.Body, done: func() { stop(); cancel() }}
	return res, nil
}

// boundBody lets go of a request's context with its body.
type boundBody struct {
	io.ReadCloser

	done func()
}

// Close implements [io.Closer].
func (b *boundBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (b *boundTransport) CloseIdleConnections() { b.inner.CloseIdleConnections() }

// serves tells whether name is one of the hosts.
func (a *acmeCertificates) serves(name string) bool {
	return slices.Contains(a.hosts, strings.ToLower(strings.TrimSuffix(name, ".")))
}

// certificate returns what a client gets: the answer to a challenge, or the
// certificate of one of the hosts. It is nil for what the hub serves otherwise,
// which is also a host whose certificate is not there yet.
func (a *acmeCertificates) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Contains(hello.SupportedProtos, acmeProtocol) {
		return a.manager.GetCertificate(hello)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.state[strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))]; s != nil {
		return s.cert, nil
	}
	return nil, nil
}

// run gets the certificates and takes renewed ones over, until ctx ends. The
// hub's ports must be served, since the CA connects to them.
func (a *acmeCertificates) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, a.cancel)
	defer stop()
	var hosts sync.WaitGroup
	for _, host := range a.hosts {
		hosts.Go(func() { a.follow(ctx, host) })
	}
	hosts.Wait()
	a.close()
}

func (a *acmeCertificates) close() {
	a.cancel()
	a.client.CloseIdleConnections()
}

// follow keeps the certificate of one host.
func (a *acmeCertificates) follow(ctx context.Context, host string) {
	retry := acmeFirstRetry
	for {
		wait := acmeCheck
		if err := a.take(host); err != nil {
			if ctx.Err() != nil {
				return
			}
			a.fail(host, err)
			wait, retry = retry, min(2*retry, acmeLastRetry)
		} else {
			retry = acmeFirstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// take asks the manager, which has the certificate or gets it.
func (a *acmeCertificates) take(host string) error {
	// The curve and the suite say that the client knows ECDSA.
	cert, err := a.manager.GetCertificate(&tls.ClientHelloInfo{
		ServerName: host, SupportedCurves: []tls.CurveID{tls.CurveP256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		return err
	}
	if cert.Leaf == nil {
		return errors.New("the certificate was not parsed")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state[host]
	s.problem = ""
	if s.cert == nil || !s.cert.Leaf.Equal(cert.Leaf) {
		a.log.Info("got a serving certificate by acme", "host", host, "expires", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	s.cert = cert
	return nil
}

func (a *acmeCertificates) fail(host string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state[host]
	s.failures++
	if s.problem != err.Error() {
		s.problem = err.Error()
		a.log.Error("cannot get a serving certificate by acme, trying again later", "host", host, "reason", err)
	}
}

// health returns the state of each host's certificate.
func (a *acmeCertificates) health() []telemetry.Health {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []telemetry.Health
	for _, host := range a.hosts {
		s := a.state[host]
		h := telemetry.Health{Name: "acme certificate of " + host, LastError: s.problem, Failures: s.failures}
		if s.cert != nil {
			h.Subject, h.NotAfter = s.cert.Leaf.Subject.String(), s.cert.Leaf.NotAfter
		}
		all = append(all, h)
	}
	return all
}
