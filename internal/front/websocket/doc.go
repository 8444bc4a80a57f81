// Package websocket is the hub's WebSocket-to-TCP front end, for browsers, which
// cannot use CONNECT: noVNC, SPICE HTML5 and terminals in a page.
//
//	wss://<hub>/-/tcp/<cluster>/<host>:<port>
//
// A binary message is a chunk of the byte stream, of any size; where a message ends
// means nothing. The subprotocol is "binary" or none. The client authenticates by
// Authorization, by Kubernetes' bearer subprotocol, or by its certificate; with a
// certificate a page of another origin is refused.
//
// Everything that is known before the upgrade, the outcome of the dial included, is
// an HTTP answer with a Kubernetes Status (see package answer). After it, these are
// the close codes (RFC 6455 section 7.4.1):
//
//	1000  the target has closed
//	1001  the hub or the agent ends
//	1003  the client has sent a text message
//	1008  a policy, an idle time among them, ends the session
//	1009  the client has sent a message larger than [MaxMessage]
//	1011  the target or the way to it has failed
//
// WebSocket has no half-close: a Close of either side ends both directions. What the
// target has sent before its end, or before it failed, is delivered before the Close; a
// client that goes on to send has five seconds to take what came before a failure.
//
// # Memory
//
// Nothing is read from a session while a message to the client waits, and nothing
// from the client while the session takes nothing, so that a slow side holds the
// other back and costs one message. A session without traffic holds no buffer for
// sending.
package websocket
