// Package connect is the hub's HTTP CONNECT front end (RFC 9110 section 9.3.6, RFC
// 9113 section 8.5): a proxy whose connections leave from the agents' networks.
//
// A request goes through these steps, and the first that fails answers it with a
// Kubernetes Status (see package answer):
//
//  1. its authority is parsed by package route (400);
//  2. the client's network is held to its limits (429);
//  3. the client is authenticated by Proxy-Authorization, Bearer or Basic, or by its
//     certificate (407). Where that is configured, a client without a credential is
//     system:anonymous, whom rules have to name;
//  4. a [Routes] or Config.Names says which cluster has the host, and the port is
//     held against a set (403);
//  5. [front.Sessions] holds the caller to limits and policy and opens the session
//     (403, 429, 502, 503, 504);
//  6. only then 200 is sent, and bytes go both ways.
//
// So nothing that looks like success is sent before the target is connected. What a
// client sent before it had the answer is not lost. An HTTP/1 connection ends after
// a refusal: what such a client has sent early is for a target, and must not be
// read as its next request (RFC 9112 section 9.2).
//
// # Ends
//
// Over HTTP/1 each direction ends on its own, by close_notify or FIN, and an abrupt
// end becomes a RST in both directions. Over HTTP/2 END_STREAM of the client ends
// its direction alone.
//
// # Limitations
//
// net/http has no HTTP/2 response that has ended while its request goes on: when the
// target ends its direction, the stream ends, and what the client still sends is
// dropped. An abrupt end of the target is RST_STREAM with INTERNAL_ERROR instead of
// CONNECT_ERROR, since net/http gives no choice.
package connect
