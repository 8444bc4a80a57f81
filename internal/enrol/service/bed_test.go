package service_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const trustDomain = "culvert.local"

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

// bed is the hub's side, with a store and authorities on the disk.
type bed struct {
	t       *testing.T
	store   *store.Store
	agents  *pki.Authority
	serving *pki.Authority
	service *service.Service
	log     *lines
	enrol   string // address for enrolment
	tunnel  string // address for tunnels
	tunnels *acceptor.Server
	links   chan *mux.Link
}

// kind is a listener whose connections have finished their handshake.
type kind struct {
	net.Listener

	cfg *tls.Config
}

// Accept implements [net.Listener].
func (k kind) Accept() (net.Conn, error) {
	for {
		raw, err := k.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := tls.Server(raw, k.cfg)
		if conn.Handshake() == nil {
			return conn, nil
		}
		_ = raw.Close()
	}
}

func newBed(t *testing.T, change func(*service.Config)) *bed {
	t.Helper()
	dir := t.TempDir()
	b := &bed{t: t, log: &lines{}, links: make(chan *mux.Link, 8)}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if b.store, err = store.Open(filepath.Join(dir, "hub.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if b.agents, err = pki.LoadOrCreate(dir, pki.RoleAgents); err != nil {
		t.Fatal(err)
	}
	if b.serving, err = pki.LoadOrCreate(dir, pki.RoleServing); err != nil {
		t.Fatal(err)
	}
	pair, err := pki.SelfServing(b.serving, dir, []string{"127.0.0.1"}, pki.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := service.Config{
		Issuer: b.agents, State: b.store, TrustDomain: trustDomain, Lifetime: time.Hour,
		HubCA: b.serving.PEM, Logger: log,
	}
	if change != nil {
		change(&cfg)
	}
	if b.service, err = service.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.serveEnrolment(pair)
	b.serveTunnels(pair, log)
	return b
}

func (b *bed) listen(cfg *tls.Config) kind {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	return kind{ln, cfg}
}

func (b *bed) serveEnrolment(pair *pki.KeyPair) {
	ln := b.listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{enrol.Protocol}, GetCertificate: pair.GetCertificateWithCA,
	})
	b.enrol = ln.Addr().String()
	server := service.NewServer(b.service)
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(ln); err != nil {
			b.t.Errorf("serve enrolment: %v", err)
		}
	})
	b.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		running.Wait()
	})
}

func (b *bed) serveTunnels(pair *pki.KeyPair, log *slog.Logger) {
	cluster := pki.VerifyAgent(b.agents, trustDomain, b.store.CheckCertificate)
	ln := b.listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{tunnel.Protocol}, GetCertificate: pair.GetCertificate,
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error { _, err := cluster(state); return err },
	})
	b.tunnel = ln.Addr().String()
	b.tunnels = acceptor.NewServer(acceptor.ServerConfig{
		Cluster: cluster,
		Register: func(_ acceptor.Peer, link *mux.Link) func() {
			b.links <- link
			return func() {}
		},
		Renew: b.service.Renew, Logger: log,
	})
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.tunnels.Serve(ln); err != nil {
			b.t.Errorf("serve tunnels: %v", err)
		}
	})
	b.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.tunnels.Shutdown(ctx, wire.CodeDraining, "the test is over") // cuts what is left, on purpose
		running.Wait()
	})
}

// token makes a join token that was made and expires at the given times from now.
func (b *bed) token(want store.Token, made, expires time.Duration) (store.Token, string) {
	b.t.Helper()
	now := time.Now()
	want.Expires = now.Add(expires)
	if want.Cluster == "" {
		want.Cluster = "edge-1"
	}
	token, secret, err := b.store.CreateToken(want, now.Add(made))
	if err != nil {
		b.t.Fatal(err)
	}
	return token, secret
}

// joiner is the agent's side of an enrolment.
func (b *bed) joiner(id, secret string) enrol.JoinConfig {
	b.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		b.t.Fatal(err)
	}
	return enrol.JoinConfig{
		Hub: b.enrol, Pins: []string{pki.Pin(b.serving.Certificate())}, TokenID: id, TokenSecret: secret,
		Version: "v1", Key: key, RetryTime: -1, AcceptTime: patience, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
	}
}

// joined enrols one agent of edge-1.
func (b *bed) joined() (tls.Certificate, *enrol.Enrolment) {
	b.t.Helper()
	token, secret := b.token(store.Token{}, 0, time.Hour)
	cfg := b.joiner(token.ID, secret)
	got, err := enrol.Join(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{got.Leaf.Raw}, PrivateKey: cfg.Key, Leaf: got.Leaf}, got
}

// dial keeps a tunnel with a certificate until the test ends.
func (b *bed) dial(cert tls.Certificate, log io.Writer) *tunnel.Dialer {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.serving.PEM())
	d := tunnel.NewDialer(tunnel.DialerConfig{
		Address: b.tunnel,
		TLS: func() *tls.Config {
			return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
		},
		Mux:    mux.Config{Hop: wire.HopAgent, Hello: wire.Hello{Version: "v1", Instance: "i"}},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
	b.t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// eventually polls what nothing signals.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
