package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxAttempts bounds how many endpoints one request or session tries.
const maxAttempts = 8

// balanced sends each request to one of several endpoints: the pool has its
// connections by their addresses, while the Host header and the name that is
// verified stay those of the server. It is safe for concurrent use.
type balanced struct {
	set  *balance.Set
	pool *http.Transport
}

// RoundTrip implements [http.RoundTripper]. A request whose endpoint could not be
// connected to, and one that can be made twice whose connection broke before there
// was an answer, or within a short one, goes to another endpoint where one works. The answer's body has
// to be read to its end or closed, until when the request counts as under way.
func (b *balanced) RoundTrip(r *http.Request) (*http.Response, error) {
	body := hold(r)
	var tried []*balance.Lease
	var failed error
	for len(tried) < maxAttempts {
		lease, err := b.set.Pick(r.Context(), tried...)
		if err != nil {
			body.end(true)
			return nil, noEndpoint(err, failed, b.set)
		}
		res, connected, err := b.send(r, lease, body)
		if err == nil {
			err = b.complete(r, res)
		}
		if err == nil {
			body.end(false)
			relay.Hold(res, lease.Done)
			return res, nil
		}
		lease.Done()
		failed = err
		switch {
		case r.Context().Err() != nil:
			body.end(true)
			return nil, err
		case !connected && body.untouched():
			lease.Failed(err)
		case connected && repeatable(r):
			lease.Suspect()
		default:
			lease.Suspect()
			body.end(true)
			return nil, err
		}
		tried = append(tried, lease)
	}
	body.end(true)
	return nil, failed
}

// send makes one attempt, and tells whether there was a connection for it.
func (b *balanced) send(r *http.Request, lease *balance.Lease, body *heldBody) (res *http.Response, connected bool, err error) {
	var got atomic.Bool
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	out := r.WithContext(ctx)
	to := *r.URL
	to.Host = lease.Address()
	out.URL = &to
	if out.Host == "" {
		out.Host = r.URL.Host
	}
	if body != nil {
		out.Body = body
	}
	res, err = b.pool.RoundTrip(out)
	if res != nil {
		res.Request = r
	}
	return res, got.Load(), err
}

// maxComplete bounds the answers that are awaited as a whole, in bytes.
const maxComplete = 16 << 10

// complete waits for the rest of a short answer whose length is known: when the
// endpoint dies in the middle of it another one can still be asked. Nothing of a
// stream, which has no length, is ever held back.
func (b *balanced) complete(r *http.Request, res *http.Response) error {
	if r.Method != http.MethodGet || !repeatable(r) || res.ContentLength <= 0 || res.ContentLength > maxComplete || !b.set.Several() {
		return nil
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		// Why it broke is what counts.
		_ = res.Body.Close()
		return err
	}
	res.Body = &wholeBody{Reader: bytes.NewReader(text), Closer: res.Body}
	return nil
}

// wholeBody is a body that has arrived.
type wholeBody struct {
	io.Reader
	io.Closer
}

// repeatable tells that making r twice does what making it once does (RFC 9110
// section 9.2.2). An upgrade does not: exec is a GET.
func repeatable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody || r.Header.Get("Upgrade") != "" {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	default:
		return false
	}
}

// heldBody is a request's body that is closed only when no other attempt can need
// it. A nil *heldBody is that of a request without one.
type heldBody struct {
	body io.ReadCloser

	mu      sync.Mutex
	touched bool // somebody has read of it
	closed  bool // the transport is done with it
	last    bool // there is no further attempt
}

func hold(r *http.Request) *heldBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &heldBody{body: r.Body}
}

// Read implements [io.Reader].
func (h *heldBody) Read(p []byte) (int, error) {
	h.mu.Lock()
	h.touched = true
	h.mu.Unlock()
	return h.body.Read(p)
}

// Close implements [io.Closer].
func (h *heldBody) Close() error {
	h.mu.Lock()
	h.closed = true
	keep := !h.touched && !h.last
	h.mu.Unlock()
	if keep {
		return nil
	}
	return h.body.Close()
}

func (h *heldBody) untouched() bool {
	if h == nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.touched
}

// end says that there is no further attempt. Where the request failed, or the
// transport has closed the body already, it is closed.
func (h *heldBody) end(failed bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.last = true
	over := h.closed || failed
	h.mu.Unlock()
	if over {
		// It is the client's, and nobody will read it.
		_ = h.body.Close()
	}
}

// unhealthyRetry is what callers are told to wait where no endpoint works: it is
// probed that often.
const unhealthyRetry = time.Second

// noEndpoint explains why Pick gave none, after an attempt that failed or none.
func noEndpoint(err, failed error, set *balance.Set) error {
	var none *balance.NoneError
	switch {
	case !errors.As(err, &none):
		return err
	case none.State.Ready && failed != nil && (!set.Probes() || !set.Several() || isTLS(failed)):
		return failed // those that are left have been tried
	case none.State.Ready && failed != nil:
		// They have, too; a probe has not found out yet.
		return &fault.Error{
			Hop: wire.HopTarget, Op: "choose an endpoint", Code: wire.CodeUnavailable, RetryAfter: unhealthyRetry,
			Err: errors.New("no endpoint of the API server is healthy: all have been tried, the last: " + balance.Reason(failed)),
		}
	default:
		r := Readiness(none.State)
		f := &fault.Error{Hop: wire.HopTarget, Op: "choose an endpoint", Code: r.Code, Err: errors.New(r.Message)}
		if f.Code == wire.CodeUnavailable {
			f.RetryAfter = unhealthyRetry
		}
		return f
	}
}

// Readiness is what a hub is told of the API server whose endpoints are in a state.
// A server that cannot be verified is not one that is away: waiting does not help,
// and the code says so.
func Readiness(s balance.State) wire.Readiness {
	if s.Ready {
		return wire.Readiness{Ready: true}
	}
	out := wire.Readiness{Code: wire.CodeUnavailable, Message: "no endpoint of the API server is healthy"}
	if why := s.Why(); why != "" {
		out.Message += ": " + why
	}
	untrusted := len(s.Endpoints) > 0
	for _, e := range s.Endpoints {
		untrusted = untrusted && e.Err != nil && isTLS(e.Err)
	}
	if untrusted {
		out.Code = wire.CodeTLSFailure
	}
	return out
}

// dialBalanced connects to one of the endpoints with nothing but TCP.
func (k *kubernetes) dialBalanced(ctx context.Context, connect func(ctx context.Context, address string) (*Conn, error)) (*Conn, error) {
	var tried []*balance.Lease
	var failed error
	for len(tried) < maxAttempts {
		lease, err := k.set.Pick(ctx, tried...)
		if err != nil {
			return nil, noEndpoint(err, failed, k.set)
		}
		conn, err := connect(ctx, lease.Address())
		if err == nil {
			conn.ended = lease.Done
			return conn, nil
		}
		lease.Done()
		if ctx.Err() != nil {
			return nil, err
		}
		lease.Failed(err)
		tried, failed = append(tried, lease), err
	}
	return nil, failed
}

// hostOf returns host:port of a server's URL.
func hostOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "http" {
		return u.Host + ":80"
	}
	return u.Host + ":443"
}
