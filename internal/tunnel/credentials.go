package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials returns gRPC credentials for connections whose TLS handshake is
// done and has negotiated protocol (ALPN). Both ends can use them. gRPC sees a
// credentials.TLSInfo as the peer's AuthInfo.
func Credentials(protocol string) credentials.TransportCredentials {
	return CredentialsAs(protocol, func(i credentials.TLSInfo) credentials.AuthInfo { return i })
}

// CredentialsAs is [Credentials] where calls see what info makes of the connection.
func CredentialsAs(protocol string, info func(credentials.TLSInfo) credentials.AuthInfo) credentials.TransportCredentials {
	return handshaken{protocol: protocol, info: info}
}

// handshaken are gRPC credentials for connections whose handshake is done.
type handshaken struct {
	protocol string
	// info makes what calls on the connection see of it.
	info func(credentials.TLSInfo) credentials.AuthInfo
}

// ClientHandshake implements [credentials.TransportCredentials].
func (h handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.authInfo(conn)
}

// ServerHandshake implements [credentials.TransportCredentials].
func (h handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.authInfo(conn)
}

func (h handshaken) authInfo(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, fmt.Errorf("connection is a %T where a TLS connection is wanted", conn)
	}
	state := secure.ConnectionState()
	switch {
	case !state.HandshakeComplete:
		return nil, nil, errors.New("connection whose TLS handshake is not complete")
	case state.NegotiatedProtocol != h.protocol:
		return nil, nil, fmt.Errorf("connection with ALPN %q where %q is wanted", state.NegotiatedProtocol, h.protocol)
	}
	return conn, h.info(credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}), nil
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

// OverrideServerName is deprecated in gRPC; the name was verified in the
// handshake.
func (handshaken) OverrideServerName(string) error { return nil }
