package front_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/front"
)

func TestDrain(t *testing.T) {
	t.Run("K2: a connection that was accepted before the end finishes its handshake and is handed on", func(t *testing.T) {
		b := newBed(t, func(*front.Config) {})
		raw, err := net.Dial("tcp", b.port.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		// It is accepted once somebody reads the first byte of its handshake.
		if _, err := raw.Write([]byte{22}); err != nil {
			t.Fatal(err)
		}
		half := &rest{Conn: raw}
		refused := func() bool {
			conn, err := net.Dial("tcp", b.port.Addr().String())
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		}
		awaitAccepted(t, b)
		drained := make(chan error, 1)
		go func() { drained <- b.port.Drain(t.Context()) }()
		deadline := time.Now().Add(patience)
		for !refused() {
			if time.Now().After(deadline) {
				t.Fatal("connections are still accepted")
			}
		}
		select {
		case err := <-drained:
			t.Fatalf("drained under a handshake: %v", err)
		default:
		}
		conn := tls.Client(half, &tls.Config{RootCAs: b.pool, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
		got, err := io.ReadAll(conn)
		if err != nil || len(got) == 0 {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
	t.Run("K2: a client that is silent in its handshake is cut when the time is over", func(t *testing.T) {
		b := newBed(t, func(*front.Config) {})
		raw, err := net.Dial("tcp", b.port.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		awaitAccepted(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := b.port.Drain(ctx); err != nil {
			t.Error(err)
		}
		if _, err := raw.Read(make([]byte, 1)); err == nil {
			t.Error("it got an answer")
		}
	})
	t.Run("a port that never served, and one that is closed, drain at once", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := front.NewPort(ln, front.Config{Web: &tls.Config{MinVersion: tls.VersionTLS12}})
		for range 2 {
			if err := p.Drain(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// rest is a connection whose first byte was sent.
type rest struct {
	net.Conn

	sent bool
}

// Write leaves that byte out.
func (r *rest) Write(p []byte) (int, error) {
	if r.sent || len(p) == 0 {
		return r.Conn.Write(p)
	}
	r.sent = true
	n, err := r.Conn.Write(p[1:])
	return n + 1, err
}

// awaitAccepted returns when the port has accepted what was dialled before: later
// connections are accepted after it.
func awaitAccepted(t *testing.T, b *bed) {
	t.Helper()
	conn, err := tls.Dial("tcp", b.port.Addr().String(), &tls.Config{RootCAs: b.pool, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
