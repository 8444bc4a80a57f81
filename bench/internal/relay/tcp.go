package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Names of the TCP roles.
const (
	NearRole = "relay-near"
	FarRole  = "relay-far"
)

// FarConfig is that of the relay beside the service: TLS in, TCP out.
type FarConfig struct {
	// Host is the address to listen on, Target where connections lead to.
	Host, Target string
	// Cert and Key are the files of its key pair.
	Cert, Key string
}

// NearConfig is that of the relay beside the client: TCP in, TLS out.
type NearConfig struct {
	// Host is the address to listen on, Target the far relay.
	Host, Target string
	// CA is the file that verifies the far relay.
	CA string
}

// Far runs the relay beside the service; it is ready with its address.
func Far(ctx context.Context, cfg FarConfig, ready func(any) error) error {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return fmt.Errorf("key pair: %w", err)
	}
	raw, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	secure := tls.NewListener(raw, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	return serve(ctx, secure, ready, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", cfg.Target)
	})
}

// Near runs the relay beside the client; it is ready with its address.
func Near(ctx context.Context, cfg NearConfig, ready func(any) error) error {
	client, err := clientTLS(cfg.CA)
	if err != nil {
		return err
	}
	raw, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	dialer := &tls.Dialer{Config: client}
	return serve(ctx, raw, ready, func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", cfg.Target)
	})
}

// serve joins every connection to one from dial, until ctx ends. Connections that
// are open then end with the process.
func serve(ctx context.Context, l net.Listener, ready func(any) error, dial func(context.Context) (net.Conn, error)) error {
	if err := ready(l.Addr().String()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil // told to end, the error is the consequence
			}
			return fmt.Errorf("accept: %w", err)
		}
		go relay(ctx, c, dial)
	}
}

// relay serves one session; it ends with both directions.
func relay(ctx context.Context, c net.Conn, dial func(context.Context) (net.Conn, error)) {
	other, err := dial(ctx)
	if err != nil {
		_ = c.Close() // tells the client that nothing comes
		return
	}
	var back sync.WaitGroup
	back.Go(func() { half(c, other) })
	half(other, c)
	back.Wait()
	_ = errors.Join(c.Close(), other.Close()) // both directions are over
}

// half copies one direction and passes its end on; a failure ends both.
func half(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if h, ok := dst.(interface{ CloseWrite() error }); ok && err == nil && h.CloseWrite() == nil {
		return
	}
	_ = errors.Join(dst.Close(), src.Close()) // the other direction wakes up by it
}
