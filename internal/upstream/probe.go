package upstream

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/balance"
)

// ProbeKind is how an endpoint is asked whether it works.
type ProbeKind string

// The kinds of probes.
const (
	// ProbeNone asks nothing: endpoints always count as healthy.
	ProbeNone ProbeKind = "none"
	// ProbeTCP makes a TCP connection.
	ProbeTCP ProbeKind = "tcp"
	// ProbeTLS makes a TLS connection whose certificate is verified.
	ProbeTLS ProbeKind = "tls"
	// ProbeHTTP sends a GET request.
	ProbeHTTP ProbeKind = "http"
	// ProbeGRPC calls Check of grpc.health.v1
	// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
	ProbeGRPC ProbeKind = "grpc"
)

// DefaultProbePath is where an API server says whether it is ready
// (https://kubernetes.io/docs/reference/using-api/health-checks/).
const DefaultProbePath = "/readyz"

// Probe says how the endpoints of the API server are asked whether they work. The
// zero value asks nothing.
type Probe struct {
	// Kind is the way; empty is none.
	Kind ProbeKind `json:"kind,omitempty"`
	// Path is what a probe of kind http asks for; default [DefaultProbePath]. The
	// answer 200 is healthy, and so is 429: who answers so has much to do. As long as
	// no endpoint has ever answered 200 the answers 401, 403 and 404 are healthy, too:
	// they mean that the agent may not ask. Afterwards they mean an API server that
	// does not know its own rules yet, as one has that is starting.
	Path string `json:"path,omitempty"`
	// Anonymous sends no credential of the agent with a probe of kind http.
	Anonymous bool `json:"anonymous,omitempty"`
	// Service is the name that a probe of kind grpc asks about; default the server as
	// a whole.
	Service string `json:"service,omitempty"`
	// Interval is the time between two probes of an endpoint, Timeout how long one may
	// take; defaults 10 s and 5 s.
	Interval metav1.Duration `json:"interval,omitzero"`
	Timeout  metav1.Duration `json:"timeout,omitzero"`
	// Rise and Fall are how many probes in a row bring an endpoint back and take it
	// out; defaults 1 and 3.
	Rise int `json:"rise,omitempty"`
	Fall int `json:"fall,omitempty"`
}

// Validate names everything that is wrong, with the field.
func (p *Probe) Validate() error {
	var problems []error
	switch p.Kind {
	case "", ProbeNone, ProbeTCP, ProbeTLS, ProbeHTTP, ProbeGRPC:
	default:
		problems = append(problems, fmt.Errorf("kind: %.64q: want %s, %s, %s, %s or %s", string(p.Kind), ProbeHTTP, ProbeTLS, ProbeTCP, ProbeGRPC, ProbeNone))
	}
	if p.Path != "" {
		if u, err := url.ParseRequestURI(p.Path); err != nil || !strings.HasPrefix(p.Path, "/") || u.Fragment != "" {
			problems = append(problems, fmt.Errorf("path: %.64q: want a path that begins with /", p.Path))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"interval", p.Interval.Duration}, {"timeout", p.Timeout.Duration}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("%s: %v is negative", d.name, d.value))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"rise", p.Rise}, {"fall", p.Fall}} {
		if n.value < 0 {
			problems = append(problems, fmt.Errorf("%s: %d is negative", n.name, n.value))
		}
	}
	return errors.Join(problems...)
}

// off tells that nothing is asked.
func (p *Probe) off() bool { return p.Kind == "" || p.Kind == ProbeNone }

// prober asks endpoints of an API server whether they work.
type prober struct {
	Probe

	scheme, host, prefix string
	dial                 func(ctx context.Context, network, address string) (net.Conn, error)
	tls                  *tls.Config // nil where the server has none
	pool                 *http.Transport
	way                  http.RoundTripper
	told                 atomic.Bool // an endpoint has answered 200
}

// Bounds of an answer to a probe, in bytes.
const (
	maxProbeHeader = 32 << 10
	maxProbeBody   = 8 << 10
)

// newProber returns nil where nothing is asked. The credentials are those of cfg.
func (k *kubernetes) newProber(p Probe, cfg *rest.Config, pool *http.Transport) (*prober, error) {
	if p.off() {
		return nil, nil
	}
	if k.scheme != "https" && p.Kind == ProbeTLS {
		return nil, errors.New("kubernetes: probe: the API server does not speak TLS, probe it with http or tcp")
	}
	own := pool.Clone()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	own.Protocols, own.HTTP2 = protocols, nil
	own.MaxIdleConnsPerHost, own.MaxResponseHeaderBytes = 1, maxProbeHeader
	// One small connection an endpoint is kept, so that a probe costs no handshake.
	own.ReadBufferSize, own.WriteBufferSize = 1<<10, 1<<10
	own.IdleConnTimeout = 2*cmp.Or(p.Interval.Duration, balance.DefaultInterval) + idleConn
	if p.Anonymous {
		cfg = rest.AnonymousClientConfig(cfg)
		if own.TLSClientConfig != nil {
			own.TLSClientConfig = own.TLSClientConfig.Clone()
			own.TLSClientConfig.Certificates, own.TLSClientConfig.GetClientCertificate = nil, nil
		}
	}
	if own.TLSClientConfig != nil {
		own.TLSClientConfig.NextProtos = nextProtos(false)
	}
	way, err := rest.HTTPWrappersForConfig(cfg, own)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: probe credentials: %w", err)
	}
	return &prober{
		Probe: p, scheme: k.scheme, host: k.host, prefix: k.prefix,
		dial: own.DialContext, tls: own.TLSClientConfig, pool: own, way: way,
	}, nil
}

// ask asks one endpoint, until ctx ends.
func (p *prober) ask(ctx context.Context, address string) error {
	switch p.Kind {
	case ProbeTCP:
		conn, err := p.dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	case ProbeTLS:
		return p.shakeHands(ctx, address)
	case ProbeGRPC:
		return p.check(ctx, address)
	default:
		return p.get(ctx, address)
	}
}

func (p *prober) shakeHands(ctx context.Context, address string) error {
	raw, err := p.dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, p.tls)
	err = conn.HandshakeContext(ctx)
	// What came of the handshake is known, and nothing else was said.
	_ = conn.Close()
	return err
}

func (p *prober) get(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.scheme+"://"+address+p.prefix+cmp.Or(p.Path, DefaultProbePath), http.NoBody)
	if err != nil {
		return err
	}
	r.Host = p.host
	r.Header.Set("User-Agent", "culvert-agent-probe")
	res, err := p.way.RoundTrip(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxProbeBody))
	// An answer that is longer than it should be costs its connection.
	_ = res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		p.told.Store(true)
		return err
	case http.StatusTooManyRequests:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		if !p.told.Load() {
			return nil
		}
	}
	return fmt.Errorf("%s answers %d%s", cmp.Or(p.Path, DefaultProbePath), res.StatusCode, failedCheck(string(text)))
}

// failedCheck returns the first check that failed, of an answer as Kubernetes
// gives it.
func failedCheck(text string) string {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if check, ok := strings.CutPrefix(lines.Text(), "[-]"); ok {
			name, _, _ := strings.Cut(check, ":")
			return ": " + name
		}
	}
	return ""
}

func (p *prober) check(ctx context.Context, address string) (err error) {
	creds := insecure.NewCredentials()
	if p.tls != nil {
		cfg := p.tls.Clone()
		cfg.NextProtos = nil // gRPC's own
		creds = credentials.NewTLS(cfg)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithAuthority(p.authority()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return p.dial(ctx, "tcp", address) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxProbeBody)), grpc.WithDisableServiceConfig())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	res, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: p.Service})
	if err != nil {
		return err
	}
	if got := res.GetStatus(); got != health.HealthCheckResponse_SERVING {
		return fmt.Errorf("grpc health says %s", got)
	}
	return nil
}

// authority is the name that the certificate of a gRPC server is held against.
func (p *prober) authority() string {
	if p.tls != nil && p.tls.ServerName != "" {
		return p.tls.ServerName
	}
	return p.host
}

func (p *prober) close() {
	if p != nil {
		p.pool.CloseIdleConnections()
	}
}
