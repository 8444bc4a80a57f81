package upstream

import (
	"crypto/tls"
	"net/http"
	"time"
)

const (
	// idleConn is how long an unused connection to a target is kept.
	idleConn = 90 * time.Second
	// maxIdleConns bounds the unused HTTP/1.1 connections to one target.
	maxIdleConns = 256
	// continueTimeout is how long a body waits for a target that never says
	// 100 Continue (RFC 9110 section 10.1.1).
	continueTimeout = time.Second
	// maxAnswerHeader bounds the head of an answer, in bytes.
	maxAnswerHeader = 1 << 20
	// streamWindow is what a target may send on one HTTP/2 stream before it
	// was passed on, in bytes: the cost of a client that does not read. The
	// connection's own window stays wide, so that such a stream stops no other.
	streamWindow = 1 << 20
	// pingAfter and pingTimeout find an HTTP/2 connection that died silently;
	// they are those of client-go.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// transports are the two ways to one kind of target.
type transports struct {
	// normal speaks HTTP/2 where the target does.
	normal http.RoundTripper
	// upgrade speaks HTTP/1.1, which alone has the Upgrade header.
	upgrade http.RoundTripper
	pools   []*http.Transport
}

// pick returns the way for a request.
func (t *transports) pick(r *http.Request) http.RoundTripper {
	if r.Header.Get("Upgrade") != "" {
		return t.upgrade
	}
	return t.normal
}

func (t *transports) close() {
	for _, pool := range t.pools {
		pool.CloseIdleConnections()
	}
}

// newTransport returns a transport that neither adds to requests nor decodes
// answers, with HTTP/2 or without.
func newTransport(http2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	return &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleConn,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamWindow,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
		},
	}
}

// nextProtos is what a TLS handshake of the transport offers.
func nextProtos(http2 bool) []string {
	if http2 {
		return []string{"h2", "http/1.1"}
	}
	return []string{"http/1.1"}
}

// minTLS is the oldest version that the agent speaks to targets.
const minTLS = tls.VersionTLS12
