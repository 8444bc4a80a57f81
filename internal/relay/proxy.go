package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Config sets up a [Proxy].
type Config struct {
	// Explain turns a failure of the transport or of an answer's body into a
	// fault. It is required, and must be safe for concurrent use. It is not
	// asked about failures of the client.
	Explain func(error) *fault.Error
	// Response, if set, edits the header of every final answer before it is
	// sent on.
	Response func(http.Header)
	// Far is the hop that speaks at the other end, for faults in what it sent.
	Far wire.Hop
	// Logger gets what net/http says at debug level. It is required.
	Logger *slog.Logger
}

// Proxy is one HTTP hop. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	reverse *httputil.ReverseProxy
	life    context.Context
	end     context.CancelFunc
}

// Leg is where and how one request is sent on.
type Leg struct {
	// Transport sends it. The transports' own pools are keyed by Scheme and
	// Host.
	Transport http.RoundTripper
	// Cluster is named in faults that do not name one. Empty at an agent.
	Cluster string
	// Scheme is "http" or "https"; Host is the key that the transport dials.
	Scheme, Host string
	// Authority is the Host header, or empty for Host.
	Authority string
	// Path is the escaped path, sent byte for byte. It starts with '/'.
	Path string
	// Header edits the outgoing header, last of all: hop-by-hop fields are
	// gone. Trailer edits the outgoing trailer, before it is announced and
	// before it is sent. Either may be nil.
	Header, Trailer func(http.Header)
	// GotConn is called with the connection that the request is sent on, before it
	// is, and again for another one when it is sent again. May be nil.
	GotConn func(net.Conn)
	// Switched is called once when an upgraded stream begins, before its first
	// byte, with what resets it; the exchange counts on. May be nil.
	Switched func(abort func())
}

// New returns a Proxy; the caller closes it with [Proxy.Close].
func New(cfg Config) *Proxy {
	life, end := context.WithCancel(context.Background())
	p := &Proxy{cfg: cfg, life: life, end: end}
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      chosenTransport{},
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		BufferPool:     &bufferPool{},
		ModifyResponse: p.response,
		ErrorHandler:   p.failed,
	}
	return p
}

// Close resets every upgraded stream. Other exchanges belong to the server that
// runs them.
func (p *Proxy) Close() { p.end() }

// passage is what belongs to one request on its way through the ReverseProxy.
type passage struct {
	leg Leg
	x   *Exchange
	// conn is the connection that an upgrade request was sent on.
	conn net.Conn
	// trace is here to be no memory of its own.
	trace httptrace.ClientTrace
}

// gotConn is for httptrace.
func (ps *passage) gotConn(info httptrace.GotConnInfo) {
	ps.conn = info.Conn
	if ps.leg.GotConn != nil {
		ps.leg.GotConn(info.Conn)
	}
}

type passageKey struct{}

// passageOf returns what Serve put into the context.
func passageOf(ctx context.Context) *passage {
	p, ok := ctx.Value(passageKey{}).(*passage)
	if !ok {
		panic("relay: a request that did not come through Serve")
	}
	return p
}

// Serve sends r on over leg and the answer back through x. It panics with
// [http.ErrAbortHandler] when the answer broke off, see [Exchange.Guard].
func (p *Proxy) Serve(x *Exchange, r *http.Request, leg Leg) {
	ps := &passage{leg: leg, x: x}
	ctx := context.WithValue(r.Context(), passageKey{}, ps)
	if leg.GotConn != nil || r.Header.Get("Upgrade") != "" {
		ps.trace.GotConn = ps.gotConn
		ctx = httptrace.WithClientTrace(ctx, &ps.trace)
	}
	p.reverse.ServeHTTP(x, r.WithContext(ctx))
}

func rewrite(pr *httputil.ProxyRequest) {
	leg := passageOf(pr.Out.Context()).leg
	u := pr.Out.URL
	u.Scheme, u.Host, u.User, u.Fragment, u.RawFragment = leg.Scheme, leg.Host, nil, "", ""
	// The ReverseProxy removed what it could not parse; the target decides.
	u.RawQuery, u.ForceQuery = pr.In.URL.RawQuery, pr.In.URL.ForceQuery
	setPath(u, leg.Path)
	pr.Out.Host = leg.Authority
	if leg.Header != nil {
		leg.Header(pr.Out.Header)
	}
	passTrailer(pr.In, pr.Out, leg.Trailer)
}

// chosenTransport sends a request over the transport of its leg.
type chosenTransport struct{}

// RoundTrip implements http.RoundTripper.
func (chosenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return passageOf(r.Context()).leg.Transport.RoundTrip(r)
}

// errSwitched ends the ReverseProxy's part in an exchange that was upgraded.
var errSwitched = errors.New("protocol switched")

func (p *Proxy) response(res *http.Response) error {
	if p.cfg.Response != nil {
		p.cfg.Response(res.Header)
	}
	ps := passageOf(res.Request.Context())
	if res.StatusCode == http.StatusSwitchingProtocols {
		// Not left to the ReverseProxy, which loses what the client sent
		// early, and closes orderly what broke.
		if err := p.upgrade(ps, res); err != nil {
			return err
		}
		return errSwitched
	}
	if len(res.Trailer) > 0 && res.Request.Method != http.MethodHead {
		// HTTP/2 has trailers beside a length, HTTP/1.1 only after chunks
		// (RFC 9112 section 7.1.2).
		res.Header.Del("Content-Length")
	}
	res.Body = &answerBody{ReadCloser: res.Body, p: p, x: ps.x}
	return nil
}

func (p *Proxy) failed(_ http.ResponseWriter, r *http.Request, err error) {
	ps := passageOf(r.Context())
	x := ps.x
	switch {
	case errors.Is(err, errSwitched):
		return
	case x.Fault() != nil:
		// The client broke its request, and the transport failed of that.
		x.Answer(r, x.Fault())
	case r.Context().Err() != nil:
		x.Answer(r, clientGone("read request", context.Cause(r.Context())))
	default:
		x.Answer(r, ps.leg.named(p.explain(err)))
	}
}

// named returns f with the leg's cluster. A session that breaks does not know
// whose it was.
func (l Leg) named(f *fault.Error) *fault.Error {
	if f.Cluster != "" || l.Cluster == "" {
		return f
	}
	named := *f
	named.Cluster = l.Cluster
	return &named
}

func (p *Proxy) explain(err error) *fault.Error {
	if f := fault.As(err); f != nil {
		return f
	}
	if f := p.cfg.Explain(err); f != nil {
		return f
	}
	return answer.Fault(p.cfg.Far, "", err)
}

// answerBody records how an answer's body broke: the ReverseProxy aborts then
// without saying why.
type answerBody struct {
	io.ReadCloser
	p *Proxy
	x *Exchange
}

// Read reads from the far side.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if errors.Is(err, context.Canceled) {
			b.x.Fail(clientGone("read answer", err))
		} else {
			b.x.Fail(b.p.explain(err))
		}
	}
	return n, err
}
