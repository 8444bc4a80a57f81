package splice_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// stalled is a session behind which 64 KiB of a connection wait, since its other end reads
// nothing, and then the connection is reset.
func stalled(t *testing.T, near splice.Conn, client io.Writer, below *net.TCPConn) (far *mux.Session, ended <-chan splice.Result) {
	t.Helper()
	pair := muxtest.New(t, func(dialler, acceptor *mux.Config) {
		for _, c := range []*mux.Config{dialler, acceptor} {
			c.InitialWindow, c.MinWindow, c.SendBuffer = 16<<10, 16<<10, 8<<10
		}
	})
	far, session := pair.Open(t)
	result := make(chan splice.Result, 1)
	go func() { result <- splice.Join(near, session, wire.HopClient) }()
	for range 16 {
		if _, err := client.Write(make([]byte, 4<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	for session.Stats().Queued == 0 || session.Stats().Sent == 0 {
		<-ticks.C
	}
	if err := errors.Join(below.SetLinger(0), below.Close()); err != nil {
		t.Fatal(err)
	}
	return far, result
}

// TestResetThatAWriteTakes is about resets of which a socket has told a write that says
// nothing of it by itself, while the socket's reader waited for its session.
func TestResetThatAWriteTakes(t *testing.T) {
	judge := func(t *testing.T, far *mux.Session, ended <-chan splice.Result) {
		got, err := io.ReadAll(far)
		if failed := (*mux.Error)(nil); !errors.As(err, &failed) || failed.Code != wire.CodeConnectionReset {
			t.Errorf("after %d bytes the other end got %v; want a reset", len(got), err)
		}
		if r := <-ended; r.Err == nil {
			t.Error("the splice says nothing of it")
		}
	}
	t.Run("N2: a little one, which the link itself does", func(t *testing.T) {
		client, near := tcpPair(t)
		far, ended := stalled(t, near, client, client)
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		awaitStop(t, far)
		judge(t, far, ended)
	})
	t.Run("N2: the end of TLS", func(t *testing.T) {
		below, near := tcpPair(t)
		server := httptest.NewUnstartedServer(nil)
		server.StartTLS()
		defer server.Close()
		secure := tls.Server(near, server.TLS)
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		client := tls.Client(below, &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13})
		shaken := make(chan error, 1)
		go func() { shaken <- secure.Handshake() }()
		if err := errors.Join(client.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		far, ended := stalled(t, secure, client, below)
		if err := far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		judge(t, far, ended)
	})
}

// awaitStop waits until nobody reads what a session sends.
func awaitStop(t *testing.T, s *mux.Session) {
	t.Helper()
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	for {
		if _, err := s.Write(nil); err != nil {
			return
		}
		<-ticks.C
	}
}

// TestAnswerToASlowClient is about a client that takes slowly what was said before a reset.
func TestAnswerToASlowClient(t *testing.T) {
	client, near := tcpPair(t)
	if err := errors.Join(client.SetReadBuffer(64<<10), near.SetWriteBuffer(256<<10)); err != nil {
		t.Fatal(err)
	}
	far, session := muxtest.New(t).Open(t)
	result := make(chan splice.Result, 1)
	go func() { result <- splice.Join(near, session, wire.HopClient) }()
	answer := make([]byte, 300<<10)
	if _, err := far.Write(answer); err != nil {
		t.Fatal(err)
	}
	far.Fail(wire.CodeConnectionReset, wire.HopTarget, "reset by peer")
	ended := make(chan struct{})
	session.AfterEnd(func(mux.SessionStats, error) { close(ended) })
	<-ended
	got, err := io.ReadAll(client)
	if len(got) != len(answer) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %d of %d bytes, and %v", len(got), len(answer), err)
	}
	if r := <-result; r.Err == nil {
		t.Error("the splice says nothing of it")
	}
}
