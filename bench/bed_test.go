package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

// listen accepts on loopback until the benchmark ends and hands every connection
// to serve, in a goroutine of its own.
func listen(b *testing.B, wrap func(net.Listener) net.Listener, serve func(net.Conn)) string {
	b.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ln := raw
	if wrap != nil {
		ln = wrap(raw)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	b.Cleanup(func() {
		if err := raw.Close(); err != nil {
			b.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return raw.Addr().String()
}

// service is what the tunnel leads to: it reads one byte that says what to do.
func service(c net.Conn) {
	defer func() { _ = c.Close() }()
	kind := make([]byte, 1)
	if _, err := io.ReadFull(c, kind); err != nil {
		return
	}
	switch kind[0] {
	case 'd': // download: an endless source
		block := make([]byte, 256<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	case 'u': // upload: a sink
		_, _ = io.Copy(io.Discard, c)
	case 'e': // echo
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 4096))
	}
}

// certificates returns TLS configurations of both ends of the middle hop.
func certificates(b *testing.B) (server, client *tls.Config) {
	b.Helper()
	dir := b.TempDir()
	agents, err := pki.LoadOrCreate(dir, pki.RoleAgents)
	if err != nil {
		b.Fatal(err)
	}
	serving, err := pki.LoadOrCreate(dir, pki.RoleServing)
	if err != nil {
		b.Fatal(err)
	}
	pair, err := pki.SelfServing(serving, dir, []string{"localhost"}, pki.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		b.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := agents.IssueAgent(key.Public(), "culvert.local", "bench", pki.DefaultLifetime)
	if err != nil {
		b.Fatal(err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := tls.X509KeyPair(leaf, keyPEM)
	if err != nil {
		b.Fatal(err)
	}
	server = &tls.Config{
		GetCertificate: pair.GetCertificate, MinVersion: tls.VersionTLS13, NextProtos: []string{tunnel.Protocol},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: agents.Pool(),
	}
	client = &tls.Config{
		RootCAs: serving.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13,
		NextProtos: []string{tunnel.Protocol}, Certificates: []tls.Certificate{cert},
	}
	return server, client
}

// relay is the reference. It returns the address that leads to target.
func relay(b *testing.B, target string) string {
	server, client := certificates(b)
	far := listen(b, func(l net.Listener) net.Listener { return tls.NewListener(l, server) }, func(c net.Conn) {
		join(b, c, func() (net.Conn, error) { return net.Dial("tcp", target) })
	})
	return listen(b, nil, func(c net.Conn) {
		join(b, c, func() (net.Conn, error) { return tls.Dial("tcp", far, client) })
	})
}

// culvert is a hub with a plain TCP port and an agent. It returns the address
// that leads to target.
func culvert(b *testing.B, target string) string {
	server, client := certificates(b)
	links := make(chan *mux.Link, 1)
	srv := tunnel.NewServer(tunnel.ServerConfig{
		Cluster:  func(tls.ConnectionState) (string, error) { return "bench", nil },
		Register: func(_ tunnel.Peer, l *mux.Link) func() { links <- l; return func() {} },
		Logger:   slog.New(slog.DiscardHandler),
	})
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	d := tunnel.NewDialer(tunnel.DialerConfig{
		Address: raw.Addr().String(),
		TLS:     func() *tls.Config { return client },
		Mux: mux.Config{Hop: wire.HopAgent, Handler: func(_ context.Context, in *mux.Incoming) {
			c, err := net.Dial("tcp", target)
			if err != nil {
				in.Refuse(wire.CodeConnectionRefused, wire.HopTarget, err.Error())
				return
			}
			s, err := in.Accept()
			if err != nil {
				_ = c.Close()
				return
			}
			splice.Join(s, c.(*net.TCPConn), wire.HopTarget)
		}},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(shaken{tls.NewListener(raw, server)}); err != nil {
			b.Errorf("serve: %v", err)
		}
	})
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			b.Errorf("run: %v", err)
		}
	})
	link := <-links
	address := listen(b, nil, func(c net.Conn) {
		s, err := link.Open(ctx, mux.Request{Target: wire.Address("target", 1)})
		if err != nil {
			_ = c.Close()
			return
		}
		splice.Join(c.(*net.TCPConn), s, wire.HopClient)
	})
	b.Cleanup(func() {
		cancel()
		over, stop := context.WithCancel(context.Background())
		stop()
		_ = srv.Shutdown(over, wire.CodeDraining, "over") // cuts what is left
		running.Wait()
	})
	return address
}

// shaken finishes the handshake of what it accepts.
type shaken struct{ net.Listener }

func (l shaken) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c, c.(*tls.Conn).Handshake()
}

type halfCloser interface{ CloseWrite() error }

// join copies both directions with io.Copy, as a plain relay does.
func join(b *testing.B, a net.Conn, dial func() (net.Conn, error)) {
	c, err := dial()
	if err != nil {
		b.Errorf("relay: %v", err)
		_ = a.Close()
		return
	}
	copyHalf := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src)
		if err := dst.(halfCloser).CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
			_ = dst.Close()
		}
	}
	var other sync.WaitGroup
	other.Go(func() { copyHalf(a, c) })
	copyHalf(c, a)
	_ = c.Close()
	other.Wait()
	_ = a.Close()
}
