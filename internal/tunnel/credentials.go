package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// handshaken are gRPC credentials for connections whose handshake is done.
type handshaken struct{}

func (handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return authInfo(conn)
}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return authInfo(conn)
}

func authInfo(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, fmt.Errorf("tunnel connection is a %T where a TLS connection is wanted", conn)
	}
	state := secure.ConnectionState()
	switch {
	case !state.HandshakeComplete:
		return nil, nil, errors.New("tunnel connection whose TLS handshake is not complete")
	case state.NegotiatedProtocol != Protocol:
		return nil, nil, fmt.Errorf("tunnel connection with ALPN %q where %q is wanted", state.NegotiatedProtocol, Protocol)
	}
	return conn, credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

// OverrideServerName is deprecated in gRPC; the name was verified in the
// handshake.
func (handshaken) OverrideServerName(string) error { return nil }
