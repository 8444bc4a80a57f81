// Package relay is one HTTP hop, as the hub and the agent both are one: it sends
// a request on and brings the answer back, without changing what it does not
// have to.
//
// # What passes unchanged
//
// Path and query byte for byte, method, status, bodies, trailers of both
// directions, 1xx answers, Expect: 100-continue, Content-Encoding, and all
// headers that are neither hop-by-hop (RFC 9110 section 7.6.1) nor edited by the
// [Leg]. Nothing is added: no User-Agent, Accept-Encoding, X-Forwarded-* or
// guessed Content-Type. What arrives is written and flushed at once.
//
// # Upgrades
//
// An answer 101 to any Upgrade other than to HTTP itself turns the exchange into
// bytes in both directions, each with an end of its own (half-close) and without
// any time limit. When one direction fails, both connections are reset, so that
// neither peer takes a cut stream for a finished one.
//
// # Failure
//
// Before the answer's head was sent, a failure becomes an answer of package
// answer. After it, the client's stream is aborted visibly: RST_STREAM, a chunked
// body or Content-Length that stays short, or for HTTP/1.0 a reset connection.
//
// # Usage
//
//	x, r := relay.Begin(w, r)
//	x.Guard(r, log, func() { proxy.Serve(x, r, leg) })
//
// # Limitations
//
// A client that closes its sending side after an HTTP/1.1 request counts as
// gone, as for every server of net/http. Request trailers reach an HTTP/2 target
// only if the client announced them. An answer that announces trailers loses its
// Content-Length; trailers that an HTTP/2 target sends beside a Content-Length
// without announcing them are lost. HTTP/2 clients cannot upgrade (RFC 8441 is
// not spoken).
package relay
