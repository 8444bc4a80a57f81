// Package tunnel drives a gRPC stream as a link of package mux.
//
// A hub serves streams with package tunnel/acceptor, an agent keeps one open with
// [Dialer], and a client makes one with [Connect]. All expect connections whose TLS handshake is done: who the peer is has been
// decided before the first byte of HTTP/2, and gRPC sees nobody else.
//
// The transport windows of HTTP/2 are set wide, on the stream and on the
// connection, since sessions have credit of their own and the receive loop never
// waits for a reader.
package tunnel

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/culvertdev/culvert/internal/wire"
)

// The ALPN names (RFC 7301) by which a dialler asks for a link, on a port that also
// serves HTTPS.
const (
	// Protocol is of agents, whose certificate says whose they are.
	Protocol = "culvert.tunnel.v1"
	// ClientProtocol is of clients, who have a bearer token or a certificate of theirs.
	ClientProtocol = "culvert.client.v1"
)

const (
	// transportWindow is the HTTP/2 window of the stream and of the connection,
	// in bytes: 1 Gbit/s over half a second.
	transportWindow = 64 << 20
	// maxMessage bounds one message in either direction, in bytes. gRPC checks
	// the length that a peer claims before it makes room for it. A link never
	// sends more than mux.DefaultMaxData and some control frames in one message.
	maxMessage = 1 << 20
	// writeBuffer is what gRPC collects before it writes, in bytes; it holds the
	// buffer only while it does. Reads are not buffered: tlsio reads ahead, and
	// what TLS has decrypted need not be copied once more.
	writeBuffer = 128 << 10
	// maxHeaders bounds the HTTP/2 header list of a call, in bytes. A client's has its
	// token.
	maxHeaders = 64 << 10
)

// Transport keepalive finds dead connections below the stream; the link's own
// pings are faster. The client's may not come faster than the server allows.
var (
	clientKeepalive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}
	serverKeepalive = keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}
	enforcement     = keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}
)

// ServerOptions are what the hub's end of links needs of gRPC: windows, bounds,
// keepalive and the codec. A connection without a call is ended after idle.
func ServerOptions(idle time.Duration) []grpc.ServerOption {
	alive := serverKeepalive
	alive.MaxConnectionIdle = idle
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.Codec{}),
		grpc.KeepaliveParams(alive),
		grpc.KeepaliveEnforcementPolicy(enforcement),
		grpc.StaticStreamWindowSize(transportWindow),
		grpc.StaticConnWindowSize(transportWindow),
		grpc.WriteBufferSize(writeBuffer),
		grpc.ReadBufferSize(0),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(16),
		grpc.ConnectionTimeout(10 * time.Second),
	}
}
