package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
	"github.com/culvertdev/culvert/server"
)

// patience is how long a test waits for what comes at once.
const patience = 20 * time.Second

// buffer is a log of several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// hub is one that runs, with its state folder.
type hub struct {
	t      *testing.T
	server *server.Server
	state  string
	log    *buffer
	end    context.CancelFunc
	ended  chan error
	admin  *admin.Client
}

// config returns one for a new state folder.
func config(t *testing.T) server.Config {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.csv")
	write(t, tokens, "tok-ada,ada,1,\"admins\"\ntok-bob,bob,2\n")
	return server.Config{State: filepath.Join(dir, "state"), TokenFile: tokens, Listen: []string{"127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler)}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, cfg server.Config) *hub {
	t.Helper()
	h := &hub{t: t, state: cfg.State, log: &buffer{}, ended: make(chan error, 1)}
	cfg.Logger = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.DrainTimeout.Duration = time.Second
	var err error
	if h.server, err = server.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	h.end = end
	go func() { h.ended <- h.server.Run(ctx) }()
	h.admin = admin.NewSocketClient(cfg.State)
	t.Cleanup(h.stop)
	return h
}

// stop ends the hub; the second time it does nothing.
func (h *hub) stop() {
	if h.end == nil {
		return
	}
	h.end()
	h.end = nil
	h.admin.Close()
	if err := <-h.ended; err != nil {
		h.t.Errorf("hub: %v", err)
	}
}

// address is the hub's with a name that its own certificate has.
func (h *hub) address() string {
	_, port, err := net.SplitHostPort(h.server.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	return net.JoinHostPort("localhost", port)
}

// roots are the CAs that the hub hands out.
func (h *hub) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.server.ServingCA())
	return pool
}

// dial makes a TLS connection and returns its state; change may be nil.
func (h *hub) dial(change func(*tls.Config)) (tls.ConnectionState, error) {
	h.t.Helper()
	cfg := &tls.Config{RootCAs: h.roots(), ServerName: "localhost", MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if change != nil {
		change(cfg)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", h.server.Addr().String(), cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	// The server's verdict on a client certificate comes after the handshake.
	_, err = io.WriteString(conn, "GET /-/healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
	if err == nil {
		_, err = io.ReadAll(conn)
	}
	return conn.ConnectionState(), errors.Join(err, conn.Close())
}

// get asks the hub as the owner of a token; empty asks as nobody.
func (h *hub) get(method, path, token string) (int, string) {
	h.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots(), MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(h.t.Context(), method, "https://"+h.address()+path, http.NoBody)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// member is an agent with a certificate.
type member struct {
	enrolment *enrol.Enrolment
	pair      tls.Certificate
}

// join enrols with a token's text.
func (h *hub) join(text string) (*member, error) {
	h.t.Helper()
	token, err := enrol.DecodeToken(text)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		h.t.Fatal(err)
	}
	return h.joinAs(enrol.JoinConfig{
		Hub: token.Hub, Pins: token.Pins, TokenID: token.ID, TokenSecret: token.Secret, Cluster: token.Cluster,
	}, key)
}

func (h *hub) joinAs(cfg enrol.JoinConfig, key *ecdsa.PrivateKey) (*member, error) {
	h.t.Helper()
	cfg.Key, cfg.Logger, cfg.RetryTime = key, slog.New(slog.DiscardHandler), -1
	got, err := enrol.Join(h.t.Context(), cfg)
	if err != nil {
		return nil, err
	}
	encoded, err := pki.EncodeKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(got.Chain, encoded)
	if err != nil {
		h.t.Fatal(err)
	}
	return &member{got, pair}, nil
}

// token makes a join token by the administrators' socket.
func (h *hub) token(want admin.TokenRequest) admin.NewToken {
	h.t.Helper()
	made, err := h.admin.CreateToken(h.t.Context(), want)
	if err != nil {
		h.t.Fatal(err)
	}
	return made
}

// connect keeps a tunnel of m until stop is called.
func (h *hub) connect(m *member) (dialer *tunnel.Dialer, log *buffer, stop func()) {
	h.t.Helper()
	log = &buffer{}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.enrolment.HubCA)
	dialer = tunnel.NewDialer(tunnel.DialerConfig{
		Address: h.address(),
		TLS: func() *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{m.pair}}
		},
		Mux:    mux.Config{Hello: wire.Hello{Version: "test", Instance: "one", Name: "edge-1-6f9c"}, Hop: wire.HopAgent, Budget: mux.NewBudget(mux.DefaultBudget)},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- dialer.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		end()
		if err := <-ended; err != nil {
			h.t.Errorf("tunnel: %v", err)
		}
	})
	h.t.Cleanup(stop)
	return dialer, log, stop
}

// await waits for what must come soon.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q: %s", what, part, text)
		}
	}
}
