package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/fault"
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
	// set has the endpoints that stand for the server; prober is nil where they are
	// not asked whether they work.
	set    *balance.Set
	prober *prober
	// prefix is the path of the server's URL without its last '/'.
	prefix string
}

func newKubernetes(config Config, d *dialer) (*kubernetes, error) {
	o := config.Observer
	cfg := rest.CopyConfig(config.Kubernetes)
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
	if k.set, err = k.newSet(config, server); err != nil {
		return nil, err
	}
	d = &dialer{resolver: d.resolver, timeout: d.timeout, dials: o.Metrics}
	verify, err := newServerVerifier(cfg, server)
	if err != nil {
		return nil, err
	}
	if err := k.fill(cfg, server, k.set, verify, d); err != nil {
		return nil, err
	}
	// The agent's certificate would come before a token to the API server.
	if err := k.passThrough.fill(rest.AnonymousClientConfig(cfg), server, k.set, verify, d); err != nil {
		return nil, err
	}
	if k.prober, err = k.newProber(config.Probe, cfg, k.pools[0]); err != nil {
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

// newSet returns the endpoints that the configuration names, or the one of the
// server's own address.
func (k *kubernetes) newSet(config Config, server *url.URL) (*balance.Set, error) {
	p := config.Probe
	cfg := balance.Config{
		Endpoints: config.KubernetesEndpoints, Method: config.KubernetesBalance, Interval: p.Interval.Duration, Timeout: p.Timeout.Duration,
		Rise: p.Rise, Fall: p.Fall, Changed: config.KubernetesChanged, Logger: config.Logger,
	}
	if !p.off() {
		cfg.Probe = func(ctx context.Context, address string) error { return k.prober.ask(ctx, address) }
	}
	if len(cfg.Endpoints) > 0 {
		cfg.Resolve = k.dialer.resolver.LookupHost
	} else {
		// A name is resolved with each connection, as it always was.
		cfg.Endpoints = []string{hostOf(server)}
	}
	set, err := balance.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return set, nil
}

// dial connects to the API server with nothing but TCP.
func (k *kubernetes) dial(ctx context.Context) (*Conn, error) {
	return k.dialBalanced(ctx, func(ctx context.Context, address string) (*Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		number, err := portNumber(port)
		if err != nil {
			return nil, err
		}
		conn, err := k.dialer.reach(ctx, host, number, anyAddress)
		if err != nil {
			return nil, err
		}
		return &Conn{TCPConn: conn}, nil
	})
}

// anyAddress judges what the owner configured, where the hub has no part in it.
func anyAddress(_ context.Context, addrs []netip.Addr) ([]netip.Addr, error) { return addrs, nil }

// close closes the connections that nobody uses.
func (k *kubernetes) close() {
	k.transports.close()
	k.passThrough.close()
	k.prober.close()
}

// fill makes both ways with the credentials of cfg.
func (t *transports) fill(cfg *rest.Config, server *url.URL, set *balance.Set, verify serverVerifier, d *dialer) error {
	var err error
	if t.normal, err = t.newWay(cfg, server, set, verify, d, true); err != nil {
		return err
	}
	t.upgrade, err = t.newWay(cfg, server, set, verify, d, false)
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
func (t *transports) newWay(cfg *rest.Config, server *url.URL, set *balance.Set, verify serverVerifier, d *dialer, http2 bool) (http.RoundTripper, error) {
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
		// Whatever the address of an endpoint is, it has to be this server.
		tlsConfig.ServerName = cmp.Or(tlsConfig.ServerName, server.Hostname())
		verify.apply(tlsConfig)
		pool.TLSClientConfig = tlsConfig
	}
	way, err := rest.HTTPWrappersForConfig(cfg, &balanced{set: set, pool: pool})
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
