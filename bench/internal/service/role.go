package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// RoleName is the name of Role.
const RoleName = "service"

// Config of the role.
type Config struct {
	// Host is the address to listen on, an IPv4 address.
	Host string
	// Cert and Key are the files of the key pair of both TLS ports.
	Cert, Key string
}

// Addresses are where the role serves, each as host:port.
type Addresses struct {
	// TCP and TLS serve the operations, Web the trivial service over HTTPS, Names
	// is the name server.
	TCP, TLS, Web, Names string
}

// Role serves everything from one process until ctx ends.
func Role(ctx context.Context, cfg Config, ready func(any) error) error {
	host, err := netip.ParseAddr(cfg.Host)
	if err != nil || !host.Is4() {
		return fmt.Errorf("host: want an IPv4 address, got %q", cfg.Host)
	}
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return fmt.Errorf("key pair: %w", err)
	}
	free := net.JoinHostPort(cfg.Host, "0")
	var listeners [3]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", free); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	names, err := net.ListenPacket("udp", free)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	secure := tls.NewListener(listeners[1], &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s Server
	errs := make([]error, 4)
	var serves sync.WaitGroup
	for i, serve := range []func() error{
		func() error { return s.Serve(ctx, listeners[0]) },
		func() error { return s.Serve(ctx, secure) },
		func() error { return ServeWeb(ctx, WebServer(), listeners[2], cfg.Cert, cfg.Key) },
		func() error { return ServeNames(ctx, names, host) },
	} {
		serves.Go(func() { defer cancel(); errs[i] = serve() })
	}
	err = ready(Addresses{
		TCP: listeners[0].Addr().String(), TLS: listeners[1].Addr().String(),
		Web: listeners[2].Addr().String(), Names: names.LocalAddr().String(),
	})
	if err != nil {
		cancel()
	}
	serves.Wait()
	return errors.Join(err, errors.Join(errs...))
}
