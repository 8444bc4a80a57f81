package refusals

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// request is sent as it is, byte for byte, see [rawhttp.Request].
type request struct {
	method, path string
	header       [][2]string
	body         string
	trailer      [][2]string
}

func (r request) raw() rawhttp.Request {
	return rawhttp.Request{Method: r.method, Path: r.path, Header: r.header, Body: r.body, Trailer: r.trailer}
}

// answer is what came back. Without a status the hub cut the request, and cut
// says how.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    string
}

func answered(a rawhttp.Answer) answer { return answer{a.Status, a.Header, a.Body, a.Cut} }

// protocol sends a request in one version of HTTP.
type protocol struct {
	name string
	send func(t *testing.T, h *hub, r request) answer
}

func protocols() []protocol {
	var all []protocol
	for _, p := range rawhttp.Protocols() {
		all = append(all, protocol{p.Name, func(t *testing.T, h *hub, r request) answer {
			t.Helper()
			return answered(p.Send(t.Context(), h.raw(), r.raw()))
		}})
	}
	return all
}

func bearer(token string) [][2]string { return [][2]string{{"authorization", "Bearer " + token}} }

// exchangeTime bounds one request and its answer.
const exchangeTime = 20 * time.Second

// raw is the hub as the sender of bytes knows it.
func (h *hub) raw(certs ...tls.Certificate) rawhttp.Server {
	return rawhttp.Server{Addr: h.addr, Roots: h.roots, Certificates: certs, Timeout: exchangeTime}
}

// dial opens a TLS connection to the hub for one protocol. It is closed at the end
// of the test at the latest.
func (h *hub) dial(t *testing.T, alpn string, certs ...tls.Certificate) *tls.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), exchangeTime)
	defer cancel()
	conn, err := h.raw(certs...).Dial(ctx, alpn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // often closed or broken by then
	return conn
}

// http1 sends r in HTTP/1.1.
func (h *hub) http1(t *testing.T, r request) answer {
	t.Helper()
	return answered(h.raw().HTTP1(t.Context(), r.raw()))
}
