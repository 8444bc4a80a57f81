// Package relay is the reference: the least that a tunnel of two hops can do.
//
// For TCP that is client - TCP - near relay - TLS 1.3 - far relay - TCP - service,
// with io.Copy and one TLS connection a session: no multiplexing, no framing, no
// flow control of its own, no fairness.
//
// For HTTP it is two [httputil.ReverseProxy] with kept-alive HTTP/1.1 over TLS
// between them; the far one adds a token and Impersonate-* headers, as an agent
// does.
package relay
