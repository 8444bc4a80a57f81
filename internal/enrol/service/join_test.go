package service_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
)

// server accepts connections and hands each to serve.
func server(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				serve(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

func TestJoinTrustsNobodyElse(t *testing.T) {
	b := newBed(t, nil)
	token, secret := b.token(store.Token{}, 0, time.Hour)
	dir := t.TempDir()
	other, err := pki.LoadOrCreate(filepath.Join(dir, "other"), pki.RoleServing)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.SelfServing(other, filepath.Join(dir, "other"), []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	heard := func(cfg *tls.Config) func(net.Conn) {
		return func(raw net.Conn) {
			conn := tls.Server(raw, cfg)
			if conn.Handshake() != nil {
				return
			}
			buf := make([]byte, 64<<10)
			n, _ := conn.Read(buf) // whatever a client that goes on would say
			if n > 0 {
				t.Errorf("the client said %q", buf[:n])
			}
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	pair := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: foreign.GetCertificateWithCA, NextProtos: []string{enrol.Protocol}}
	otherPin := []string{pki.Pin(other.Certificate())}
	for _, c := range []struct {
		title  string
		change func(*enrol.JoinConfig)
		says   []string
	}{
		{
			"K6: the pin of another CA", func(c *enrol.JoinConfig) { c.Pins = otherPin },
			[]string{"none of the", "is of the authority that the join token names", "another hub, or something between reads the connection"},
		},
		{
			"K6: somebody else at the hub's address", func(c *enrol.JoinConfig) { c.Hub = server(t, heard(pair)) },
			[]string{"is of the authority that the join token names"},
		},
		{
			"K6: the right CA and another name", func(c *enrol.JoinConfig) { c.HubName = "hub.example.com" },
			[]string{`it is not for "hub.example.com" but for 127.0.0.1`},
		},
		{
			"K6: a CA file that is not the hub's", func(c *enrol.JoinConfig) { c.Pins, c.Roots = nil, other },
			[]string{"signed by a CA that is not trusted here"},
		},
		{
			"K6: a server that speaks TLS 1.2 only", func(c *enrol.JoinConfig) {
				c.Hub, c.Pins = server(t, heard(&tls.Config{MaxVersion: tls.VersionTLS12, GetCertificate: foreign.GetCertificateWithCA})), otherPin
			},
			[]string{"the hub refused the connection", "protocol version"},
		},
		{
			"K6: a server that does not take agents without a certificate", func(c *enrol.JoinConfig) {
				c.Hub, c.Pins = server(t, heard(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: foreign.GetCertificateWithCA, NextProtos: []string{"h2"}})), otherPin
			},
			[]string{"the hub refused the connection, does it take agents without a certificate on this port?"},
		},
		{
			"K6: a server that knows no ALPN", func(c *enrol.JoinConfig) {
				c.Hub, c.Pins = server(t, heard(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: foreign.GetCertificateWithCA})), otherPin
			},
			[]string{"it does not speak culvert.enrol.v1"},
		},
		{
			"K6: a server without TLS", func(c *enrol.JoinConfig) {
				c.Hub = server(t, func(conn net.Conn) { _, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) })
			},
			[]string{"it does not answer in TLS"},
		},
		{
			"K6: nobody", func(c *enrol.JoinConfig) { c.Hub = closed.Addr().String() },
			[]string{"connect to the hub", "connection refused"},
		},
		{
			"a scheme in the address", func(c *enrol.JoinConfig) { c.Hub = "https://" + b.enrol },
			[]string{"hub: want host:port, without a scheme"},
		},
	} {
		t.Run(c.title, func(t *testing.T) {
			cfg := b.joiner(token.ID, secret)
			c.change(&cfg)
			_, err := enrol.Join(t.Context(), cfg)
			if err == nil {
				t.Fatal("joined")
			}
			t.Logf("agent: %v", err)
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Error("the error has the secret")
			}
		})
	}
	if got, _, err := b.store.Token(token.ID); err != nil || !got.Used.IsZero() {
		t.Errorf("the token was spent: %+v, %v", got, err)
	}
}

func TestJoinTriesAgain(t *testing.T) {
	t.Run("K6: a hub that is not there yet is tried until it is", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{}, 0, time.Hour)
		cfg := b.joiner(token.ID, secret)
		cfg.RetryTime = patience
		attempts := 0
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if attempts++; attempts < 3 {
				return nil, errors.New("no route")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		if _, err := enrol.Join(t.Context(), cfg); err != nil || attempts != 3 {
			t.Errorf("%d attempts: %v", attempts, err)
		}
		if said := b.log.with("cannot enrol yet, trying again"); len(said) != 2 || !strings.Contains(said[0], "no route") {
			t.Errorf("log: %q", said)
		}
	})
	t.Run("a join that is cancelled ends", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{Approval: true}, 0, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := enrol.Join(ctx, b.joiner(token.ID, secret))
			done <- err
		}()
		eventually(t, "it waits", func() bool { return len(b.log.with("waiting until the cluster is accepted")) == 1 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	t.Run("K6,O9: a token from before a rotation of the hub's CA joins, and the agent gets both CAs", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{}, 0, time.Hour)
		cfg := b.joiner(token.ID, secret) // with the pin of now
		if _, err := b.serving.Rotate(); err != nil {
			t.Fatal(err)
		}
		got, err := enrol.Join(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(got.HubCA), "BEGIN CERTIFICATE"); n != 2 {
			t.Errorf("%d CAs", n)
		}
	})
}
