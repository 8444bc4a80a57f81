package pki

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

// outcome is what one side of a handshake saw. In TLS 1.3 a client is through
// before the server has judged its certificate, so both sides also move a byte.
type outcome struct {
	state tls.ConnectionState
	err   error
}

// handshake connects client to server over loopback TCP.
func handshake(t *testing.T, server, client *tls.Config) (atServer, atClient outcome) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan outcome, 1)
	go serveOne(listener, server, done)
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	atClient = finish(tls.Client(conn, client))
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	return <-done, atClient
}

// serveOne ends when the client closes the one connection it accepts.
func serveOne(listener net.Listener, config *tls.Config, done chan<- outcome) {
	conn, err := listener.Accept()
	if err != nil {
		done <- outcome{err: err}
		return
	}
	defer conn.Close()
	server := tls.Server(conn, config)
	if err := server.Handshake(); err != nil {
		done <- outcome{err: err}
		return
	}
	_, err = server.Write([]byte{1})
	if err == nil {
		// Closing with unread bytes would reset the connection under the client.
		if _, err = io.Copy(io.Discard, server); errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
	}
	done <- outcome{state: server.ConnectionState(), err: err}
}

func finish(conn *tls.Conn) outcome {
	if err := conn.Handshake(); err != nil {
		return outcome{err: err}
	}
	_, err := conn.Read(make([]byte, 1))
	return outcome{state: conn.ConnectionState(), err: err}
}

// hub is the tls.Config of a hub as the package documentation has it.
func hub(pair *KeyPair, roots Roots) *tls.Config {
	verify := VerifyAgent(roots, trustDomain)
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: pair.GetCertificate,
		ClientAuth:     tls.RequireAnyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := verify(state)
			return err
		},
	}
}

// agent is the tls.Config of an agent as the package documentation has it, with
// a certificate that stays the same.
func agent(cert tls.Certificate, roots Roots, name string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         name,
		InsecureSkipVerify: true,
		VerifyConnection:   VerifyServer(roots, name),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cert, nil
		},
	}
}

func wantThrough(t *testing.T, reason string, atServer, atClient outcome) {
	t.Helper()
	if atServer.err != nil || atClient.err != nil {
		t.Fatalf("%s: server: %v, client: %v", reason, atServer.err, atClient.err)
	}
	if v := atServer.state.Version; v != tls.VersionTLS13 {
		t.Errorf("%s: %s, want TLS 1.3", reason, tls.VersionName(v))
	}
}
