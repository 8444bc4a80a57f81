package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// kubernetes is the way to the managed cluster's API server.
type kubernetes struct {
	// transports have the agent's credential.
	transports
	// passThrough has none: requests bring the caller's own.
	passThrough  transports
	scheme, host string
	dialer       *dialer
	unverified   bool // the server is
	// prefix is the path of the server's URL without its last '/'.
	prefix string
}

func newKubernetes(from *rest.Config, d *dialer, o telemetry.Observer) (*kubernetes, error) {
	cfg := rest.CopyConfig(from)
	// client-go must not add its own name to the callers' requests.
	cfg.UserAgent = ""
	if err := useTokenFile(cfg); err != nil {
		return nil, err
	}
	server, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: server: %w", err)
	}
	k := &kubernetes{scheme: server.Scheme, host: server.Host, unverified: cfg.Insecure, prefix: strings.TrimSuffix(serverPath(cfg.Host), "/")}
	k.dialer = d
	d = &dialer{resolver: d.resolver, timeout: d.timeout, dials: o.Metrics}
	verify, err := newServerVerifier(cfg, server)
	if err != nil {
		return nil, err
	}
	if err := k.fill(cfg, verify, d); err != nil {
		return nil, err
	}
	// The agent's certificate would come before a token to the API server.
	if err := k.passThrough.fill(rest.AnonymousClientConfig(cfg), verify, d); err != nil {
		return nil, err
	}
	for _, t := range []*http.RoundTripper{&k.normal, &k.upgrade} {
		*t = o.Transport(ownCredential{*t})
	}
	for _, t := range []*http.RoundTripper{&k.passThrough.normal, &k.passThrough.upgrade} {
		*t = o.Transport(*t)
	}
	return k, nil
}

// dial connects to the API server with nothing but TCP.
func (k *kubernetes) dial(ctx context.Context) (*net.TCPConn, error) {
	host, port, err := net.SplitHostPort(k.host)
	if err != nil {
		host, port = k.host, "443"
	}
	number, err := portNumber(port)
	if err != nil {
		return nil, err
	}
	return k.dialer.reach(ctx, strings.Trim(host, "[]"), number, anyAddress)
}

// anyAddress judges what the owner configured, where the hub has no part in it.
func anyAddress(_ context.Context, addrs []netip.Addr) ([]netip.Addr, error) { return addrs, nil }

// close closes the connections that nobody uses.
func (k *kubernetes) close() {
	k.transports.close()
	k.passThrough.close()
}

// fill makes both ways with the credentials of cfg.
func (t *transports) fill(cfg *rest.Config, verify serverVerifier, d *dialer) error {
	var err error
	if t.normal, err = t.newWay(cfg, verify, d, true); err != nil {
		return err
	}
	t.upgrade, err = t.newWay(cfg, verify, d, false)
	return err
}

// serverPath returns the escaped path of the server's URL.
func serverPath(host string) string {
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return ""
	}
	return u.EscapedPath()
}

// newWay returns a transport with the credentials of cfg around it.
func (t *transports) newWay(cfg *rest.Config, verify serverVerifier, d *dialer, http2 bool) (http.RoundTripper, error) {
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: tls: %w", err)
	}
	pool := newTransport(http2)
	pool.TLSHandshakeTimeout = d.timeout
	pool.DialContext = d.dialContext
	if cfg.Dial != nil {
		pool.DialContext = cfg.Dial
	}
	pool.Proxy = http.ProxyFromEnvironment
	if cfg.Proxy != nil {
		pool.Proxy = cfg.Proxy
	}
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = nextProtos(http2)
		verify.apply(tlsConfig)
		pool.TLSClientConfig = tlsConfig
	}
	way, err := rest.HTTPWrappersForConfig(cfg, pool)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: credentials: %w", err)
	}
	t.pools = append(t.pools, pool)
	return way, nil
}

// ownCredential turns the API server's 401 into an error of the agent: the only
// credential that the API server sees is the agent's, so it is not the caller who
// has to log in again.
type ownCredential struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t ownCredential) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(r)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	return nil, &fault.Error{
		Hop: wire.HopAgent, Op: "authenticate to the API server", Code: wire.CodeUnavailable,
		Err: errors.Join(errors.New("the API server refuses the agent's own credential: renew it"), res.Body.Close()),
	}
}
