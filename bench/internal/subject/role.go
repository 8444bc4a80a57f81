package subject

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
	"github.com/culvertdev/culvert/server"
)

// Names of Culvert's roles.
const (
	hubRole   = "hub"
	agentRole = "agent"
)

// drainTimeout is short: nobody waits for sessions of a benchmark that is over.
const drainTimeout = 100 * time.Millisecond

type hubConfig struct {
	// Host is the address to listen on.
	Host, State, TokenFile string
	// Cluster and Target are where the TCP port leads to.
	Cluster, Target string
	// Policy and Audit are the files of what the hub decides by and records.
	Policy, Audit string
	// Cert and Key are of the bare port.
	Cert, Key string
}

type hubAddresses struct {
	// Hub is the hub's own port, Entry the plain TCP port. Bare is a port that asks
	// nobody: requests go to the cluster without identity, policy and audit.
	Hub, Entry, Bare string
}

// logger is what the binaries have by default.
func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// runHub is a program that embeds a hub: sessions from a TCP port go to one
// target behind one agent.
func runHub(ctx context.Context, cfg hubConfig, ready func(any) error) error {
	hub, err := server.New(ctx, server.Config{
		Listen: []string{net.JoinHostPort(cfg.Host, "0")}, State: cfg.State, TLSNames: []string{cfg.Host},
		TokenFile: cfg.TokenFile, Policy: &server.Policy{File: cfg.Policy}, Audit: &server.Audit{File: &server.AuditFile{Path: cfg.Audit}},
		DrainTimeout: metav1.Duration{Duration: drainTimeout}, Logger: logger(),
	})
	if err != nil {
		return err
	}
	entry, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), hub.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var accepting sync.WaitGroup
	accepting.Go(func() { accept(ctx, hub, entry, cfg) })
	stop := context.AfterFunc(ctx, func() { _ = entry.Close() })
	defer stop()
	bare, err := newBare(hub, cfg)
	if err != nil {
		cancel()
		return errors.Join(err, hub.Close())
	}
	accepting.Go(bare.serve)
	if err := ready(hubAddresses{Hub: hub.Addr().String(), Entry: entry.Addr().String(), Bare: bare.listener.Addr().String()}); err != nil {
		cancel()
		return errors.Join(err, bare.close(), hub.Close())
	}
	err = errors.Join(hub.Run(ctx), bare.close())
	cancel()
	accepting.Wait()
	return err
}

// accept serves the TCP port until it is closed. Sessions end with the hub.
func accept(ctx context.Context, hub *server.Server, entry net.Listener, cfg hubConfig) {
	for {
		c, err := entry.Accept()
		if err != nil {
			return // closed
		}
		go join(ctx, hub, c, cfg)
	}
}

// join leads one connection to the target; it ends with both directions.
func join(ctx context.Context, hub *server.Server, c net.Conn, cfg hubConfig) {
	session, err := hub.DialContext(ctx, cfg.Cluster, "tcp", cfg.Target)
	if err != nil {
		slog.Default().Info("session refused", "reason", err)
		_ = c.Close() // tells the client that nothing comes
		return
	}
	from, ok := c.(*net.TCPConn)
	to, halves := session.(splice.Conn)
	if !ok || !halves {
		_ = errors.Join(c.Close(), session.Close()) // cannot be: both have halves
		return
	}
	splice.Join(from, to, wire.HopClient)
}

type keyPair struct{ Cert, Key string }

type kubernetes struct{ Host, CA, Token string }

type agentConfig struct {
	Hub, HubCA string
	// Pairs has a key pair for each agent.
	Pairs []keyPair
	// Address and Service may be reached.
	Address, Service     string
	ServiceCA, DNSServer string
	Kubernetes           kubernetes
}

// runAgents runs agents that are ready once all of them are connected.
func runAgents(ctx context.Context, cfg agentConfig, ready func(any) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	agents := make([]*agent.Agent, len(cfg.Pairs))
	errs := make([]error, len(cfg.Pairs))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i, pair := range cfg.Pairs {
		a, err := agent.New(agent.Config{
			Hub: cfg.Hub, HubCA: cfg.HubCA, Cert: pair.Cert, Key: pair.Key,
			AllowAddresses: []string{cfg.Address}, AllowServices: []string{cfg.Service}, SpecialAddresses: []string{"127.0.0.0/8"},
			ServiceCA: cfg.ServiceCA, DNSServer: cfg.DNSServer,
			DrainTimeout: metav1.Duration{Duration: drainTimeout},
			Kubernetes: &rest.Config{
				Host: cfg.Kubernetes.Host, BearerToken: cfg.Kubernetes.Token,
				TLSClientConfig: rest.TLSClientConfig{CAFile: cfg.Kubernetes.CA},
			},
			Logger: logger(),
		})
		if err != nil {
			return err
		}
		agents[i] = a
		running.Go(func() {
			// Sessions that are cut at the end are no failure here.
			if err := a.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				errs[i] = err
			}
		})
	}
	if err := connected(ctx, agents); err != nil {
		return err
	}
	if err := ready(len(agents)); err != nil {
		return err
	}
	<-ctx.Done()
	running.Wait()
	return errors.Join(errs...)
}

// connected waits until every agent has its tunnel.
func connected(ctx context.Context, agents []*agent.Agent) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for _, a := range agents {
		for !a.Connected() {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
