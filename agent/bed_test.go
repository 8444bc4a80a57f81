package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// with returns the lines that have a text.
func (l *lines) with(text string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// hub is the hub's side of tunnels and enrolment on one port, with a store and
// authorities on the disk.
type hub struct {
	t       *testing.T
	dir     string
	store   *store.Store
	agents  *pki.Authority
	serving *pki.Authority
	port    *front.Port
	tunnels *acceptor.Server
	links   chan *mux.Link
	log     *lines
}

func newTestHub(t *testing.T, lifetime time.Duration) *hub {
	t.Helper()
	h := &hub{t: t, dir: t.TempDir(), links: make(chan *mux.Link, 16), log: &lines{}}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.store, err = store.Open(filepath.Join(h.dir, "hub.db"))
	must(err)
	t.Cleanup(func() {
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	h.agents, err = pki.LoadOrCreate(h.dir, pki.RoleAgents, pki.WithLogger(log))
	must(err)
	h.serving, err = pki.LoadOrCreate(h.dir, pki.RoleServing, pki.WithLogger(log))
	must(err)
	pair, err := pki.SelfServing(h.serving, h.dir, []string{"127.0.0.1"}, pki.WithLogger(log))
	must(err)
	enrolment, err := service.New(service.Config{
		Issuer: h.agents, State: h.store, TrustDomain: "culvert.local", Lifetime: lifetime, HubCA: h.serving.PEM, Logger: log,
	})
	must(err)
	cluster := pki.VerifyAgent(h.agents, "culvert.local", h.store.CheckCertificate)
	h.tunnels = acceptor.NewServer(acceptor.ServerConfig{
		Cluster: cluster, Renew: enrolment.Renew, Logger: log,
		Register: func(_ acceptor.Peer, link *mux.Link) func() {
			h.links <- link
			return func() {}
		},
	})
	newcomers := service.NewServer(enrolment)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	h.port = front.NewPort(ln, front.Config{
		TunnelProtocol: tunnel.Protocol, EnrolProtocol: enrol.Protocol, Logger: log,
		Tunnel: &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{tunnel.Protocol}, GetCertificate: pair.GetCertificate,
			ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
			VerifyConnection: func(state tls.ConnectionState) error { _, err := cluster(state); return err },
		},
		Enrol: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{enrol.Protocol}, GetCertificate: pair.GetCertificateWithCA},
	})
	var running sync.WaitGroup
	for _, serve := range []func() error{
		h.port.Serve,
		func() error { return h.tunnels.Serve(h.port.Tunnel()) },
		func() error { return newcomers.Serve(h.port.Enrol()) },
	} {
		running.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				t.Errorf("hub: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if err := h.port.Close(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		newcomers.Shutdown(ctx)
		_ = h.tunnels.Shutdown(ctx, wire.CodeDraining, "the test is over") // cuts what is left, on purpose
		running.Wait()
	})
	return h
}

func (h *hub) address() string { return h.port.Addr().String() }

// token makes the text of a join token.
func (h *hub) token(cluster string) (id, text string) {
	h.t.Helper()
	now := time.Now()
	token, secret, err := h.store.CreateToken(store.Token{Cluster: cluster, Expires: now.Add(time.Hour)}, now)
	if err != nil {
		h.t.Fatal(err)
	}
	text, err = enrol.Token{
		ID: token.ID, Secret: secret, Hub: h.address(), Pins: []string{pki.Pin(h.serving.Certificate())}, Cluster: cluster,
	}.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	return token.ID, text
}

// issue signs what an operator would hand out.
func (h *hub) issue(cluster string, lifetime time.Duration) (chain, key []byte) {
	h.t.Helper()
	fresh, err := pki.NewKey()
	if err != nil {
		h.t.Fatal(err)
	}
	issued, err := h.agents.SignAgent(fresh.Public(), "culvert.local", cluster, lifetime)
	if err != nil {
		h.t.Fatal(err)
	}
	if key, err = pki.EncodeKey(fresh); err != nil {
		h.t.Fatal(err)
	}
	return issued.PEM, key
}

// config is that of an agent with a state folder of its own.
func (h *hub) config(log io.Writer) Config {
	h.t.Helper()
	return Config{
		State: filepath.Join(h.t.TempDir(), "state"), Kubernetes: &rest.Config{Host: "https://127.0.0.1:1"}, KubernetesProbe: Probe{Kind: "none"},
		AllowAddresses: []string{"127.0.0.1:*"}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Proxy: noProxy,
	}
}

// run runs an agent until the test ends, or end is called.
func (h *hub) run(cfg Config) (a *Agent, end func()) {
	h.t.Helper()
	a, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			h.t.Errorf("run: %v", err)
		}
	})
	end = sync.OnceFunc(func() { cancel(); running.Wait() })
	h.t.Cleanup(end)
	return a, end
}

// echo is a TCP server behind the agent. It ends when its connections have, so it
// has to be there before the agent.
func echo(t *testing.T) wire.Target {
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
				_, _ = io.Copy(conn, conn) // ends with the session
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	address, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%T", ln.Addr())
	}
	return wire.Address("127.0.0.1", uint16(address.Port))
}

// roundTrip sends through an open session and reads it back.
func roundTrip(s net.Conn, text string) error {
	if _, err := io.WriteString(s, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("the echo differs")
	}
	return nil
}

// eventually polls what nothing signals, for thirty seconds at most.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
