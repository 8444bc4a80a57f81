package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// kubernetes is the way to the managed cluster's API server.
type kubernetes struct {
	transports
	scheme, host string
	// prefix is the path of the server's URL without its last '/'.
	prefix string
}

func newKubernetes(from *rest.Config, d *dialer) (*kubernetes, error) {
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
	k := &kubernetes{scheme: server.Scheme, host: server.Host, prefix: strings.TrimSuffix(serverPath(cfg.Host), "/")}
	if k.normal, err = k.newWay(cfg, d, true); err != nil {
		return nil, err
	}
	if k.upgrade, err = k.newWay(cfg, d, false); err != nil {
		return nil, err
	}
	return k, nil
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
func (k *kubernetes) newWay(cfg *rest.Config, d *dialer, http2 bool) (http.RoundTripper, error) {
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
		pool.TLSClientConfig = tlsConfig
	}
	way, err := rest.HTTPWrappersForConfig(cfg, pool)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: credentials: %w", err)
	}
	k.pools = append(k.pools, pool)
	return ownCredential{way}, nil
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
