package acceptor_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestEndRightAfterShutdown ends a dialler while the last frames of its drain are
// on their way.
func TestEndRightAfterShutdown(t *testing.T) {
	h := newHub(t)
	for range 200 {
		d := tunnel.NewDialer(tunnel.DialerConfig{
			Address: h.address,
			TLS: func() *tls.Config {
				return &tls.Config{RootCAs: h.pool, Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS13}
			},
			Mux:    mux.Config{Hop: wire.HopAgent, Hello: wire.Hello{Version: "v1", Instance: "i"}, Handler: echo},
			Logger: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		<-h.links
		eventually(t, "the dialler has its link", func() bool { return d.Link() != nil })
		if err := d.Shutdown(ctx, wire.CodeDraining, "the agent is stopping"); err != nil {
			t.Error(err)
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("the dialler does not end")
		}
	}
}

// TestShutdownDelivers ends agents that have answered just now: what they wrote on a session
// that they have closed reaches the hub.
func TestShutdownDelivers(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 14<<10) // within the first credit
	h := newHub(t)
	for range 50 {
		answered := make(chan error, 1)
		d := tunnel.NewDialer(tunnel.DialerConfig{
			Address: h.address,
			TLS: func() *tls.Config {
				return &tls.Config{RootCAs: h.pool, Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS13}
			},
			Mux: mux.Config{Hop: wire.HopAgent, Hello: wire.Hello{Version: "v1", Instance: "i"}, Handler: func(_ context.Context, in *mux.Incoming) {
				s, err := in.Accept()
				if err == nil {
					_, err = io.Copy(io.Discard, s)
				}
				if err == nil {
					_, err = s.Write(payload)
				}
				answered <- errors.Join(err, s.Close())
			}},
			Logger: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		link := <-h.links
		s, err := link.Open(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the dialler has its link", func() bool { return d.Link() != nil })
		if err := errors.Join(<-answered, d.Shutdown(ctx, wire.CodeDraining, "the agent is stopping")); err != nil {
			t.Error(err)
		}
		cancel()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d of %d bytes came, %v", len(got), len(payload), err)
		}
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestRefusedInHandshake has a hub that refuses the certificate in the handshake,
// as the real one does. The dialler hears of it on a read, and must say so even
// where a write failed first.
func TestRefusedInHandshake(t *testing.T) {
	pool, cert := authority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := listener{ln, &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{tunnel.Protocol}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(tls.ConnectionState) error { return errors.New("no") },
	}}
	var serving sync.WaitGroup
	serving.Go(func() {
		if _, err := refusing.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	h := &hub{pool: pool, cert: cert, address: ln.Addr().String()}
	for range 30 {
		t.Run("dialler", func(t *testing.T) {
			var log lockedBuffer
			h.dial(t, &log)
			eventually(t, "the log says that the certificate was refused", func() bool {
				return strings.Contains(log.String(), "the hub refused this agent's certificate, the hub's log says why")
			})
		})
	}
}
