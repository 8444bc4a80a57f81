package acceptor_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a CA with one certificate for both ends.
func authority(t *testing.T) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// listener hands out connections whose handshake is done.
type listener struct {
	net.Listener

	cfg *tls.Config
}

func (l listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := tls.Server(raw, l.cfg)
		if conn.Handshake() == nil {
			return conn, nil
		}
		if err := raw.Close(); err != nil {
			return nil, err
		}
	}
}

// hub is a tunnel server that can be stopped and started at one address.
type hub struct {
	t       *testing.T
	pool    *x509.CertPool
	cert    tls.Certificate
	address string
	server  *acceptor.Server
	links   chan *mux.Link
	refuse  atomic.Bool
	change  func(*acceptor.ServerConfig) // before each start; may be nil
	served  sync.WaitGroup
}

func newHub(t *testing.T) *hub {
	pool, cert := authority(t)
	h := &hub{t: t, pool: pool, cert: cert, address: "127.0.0.1:0", links: make(chan *mux.Link, 16)}
	h.start()
	t.Cleanup(func() { h.stop(0) })
	return h
}

func (h *hub) start() {
	h.t.Helper()
	ln, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = ln.Addr().String()
	cfg := acceptor.ServerConfig{
		Cluster: func(cs tls.ConnectionState) (string, error) {
			if h.refuse.Load() {
				return "", errors.New("certificate of another cluster")
			}
			return cs.PeerCertificates[0].Subject.CommonName, nil
		},
		Register: func(p acceptor.Peer, l *mux.Link) func() {
			if p.Cluster != "test" || p.Hello.Version != "v1" {
				h.t.Errorf("peer %q says %+v", p.Cluster, p.Hello)
			}
			h.links <- l
			return func() {}
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	if h.change != nil {
		h.change(&cfg)
	}
	h.server = acceptor.NewServer(cfg)
	tlsConfig := &tls.Config{
		Certificates: []tls.Certificate{h.cert}, NextProtos: []string{tunnel.Protocol}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: h.pool,
	}
	server := h.server
	h.served.Go(func() {
		if err := server.Serve(listener{ln, tlsConfig}); err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
}

func (h *hub) stop(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = h.server.Shutdown(ctx, wire.CodeDraining, "the hub is restarting") // cuts what is left, on purpose
	h.served.Wait()
}

// dial runs an agent whose sessions echo, until the test ends.
func (h *hub) dial(t *testing.T, log io.Writer) *tunnel.Dialer {
	return h.dialWith(t, log, func() *tls.Config {
		return &tls.Config{RootCAs: h.pool, Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS13}
	})
}

// dialWith is dial with a TLS configuration of one's own.
func (h *hub) dialWith(t *testing.T, log io.Writer, config func() *tls.Config) *tunnel.Dialer {
	d := tunnel.NewDialer(tunnel.DialerConfig{
		Address: h.address,
		TLS:     config,
		Mux:     mux.Config{Hop: wire.HopAgent, Hello: wire.Hello{Version: "v1", Instance: "i"}, Handler: echo},
		Logger:  slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

func echo(_ context.Context, in *mux.Incoming) {
	s, err := in.Accept()
	if err != nil {
		return
	}
	_, _ = io.Copy(s, s) // ends with the session
	_ = s.Close()
}

func roundTrip(ctx context.Context, l *mux.Link, payload []byte) error {
	s, err := l.Open(ctx, mux.Request{Target: wire.KubernetesAPI()})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Write(payload); err == nil {
			_ = s.CloseWrite() // the reader below sees what is wrong
		}
	})
	got, err := io.ReadAll(s)
	wg.Wait()
	if err == nil && !bytes.Equal(got, payload) {
		err = errors.New("the echo differs")
	}
	return errors.Join(err, s.Close())
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

func TestTunnel(t *testing.T) {
	t.Run("K1: sessions run over one stream over mutual TLS, half-closed and intact", func(t *testing.T) {
		h := newHub(t)
		h.dial(t, io.Discard)
		link := <-h.links
		payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := roundTrip(t.Context(), link, payload); err != nil {
					t.Errorf("round trip: %v", err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("N12: the agent is back within a second of the hub's return", func(t *testing.T) {
		h := newHub(t)
		h.dial(t, io.Discard)
		old := <-h.links
		for range 3 {
			h.stop(0)
			<-old.Done()
			h.start()
			start := time.Now()
			select {
			case old = <-h.links:
			case <-time.After(patience):
				t.Fatal("no new link")
			}
			if err := roundTrip(t.Context(), old, []byte("again")); err != nil {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			t.Logf("back after %v", time.Since(start))
		}
	})
	t.Run("K1: a hub that drains lets a session end before it goes", func(t *testing.T) {
		h := newHub(t)
		h.dial(t, io.Discard)
		link := <-h.links
		s, err := link.Open(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
		if err != nil {
			t.Fatal(err)
		}
		stopped := make(chan struct{})
		go func() { h.stop(patience); close(stopped) }()
		eventually(t, "the drain begins", func() bool { return link.Stats().Draining })
		if _, err := s.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); err != nil || string(got) != "last words" {
			t.Errorf("during the drain: %q, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-stopped
		h.start()
		<-h.links
	})
	t.Run("K1: an agent that drains ends its link without an error at the hub", func(t *testing.T) {
		h := newHub(t)
		d := h.dial(t, io.Discard)
		link := <-h.links
		eventually(t, "the dialler publishes the link", func() bool { return d.Link() != nil })
		if err := d.Shutdown(t.Context(), wire.CodeDraining, "the agent is stopping"); err != nil {
			t.Fatal(err)
		}
		<-link.Done()
		var e *mux.Error
		if err := link.Err(); !errors.As(err, &e) || e.Code != wire.CodeDraining || e.Message != "the agent is stopping" {
			t.Errorf("the hub's link ended with %v", err)
		}
		<-h.links // the dialler still runs, so it comes back
	})
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestRefusedAgentSaysWhy(t *testing.T) {
	h := newHub(t)
	h.refuse.Store(true)
	var log lockedBuffer
	h.dial(t, &log)
	eventually(t, "the agent's log says why", func() bool {
		return strings.Contains(log.String(), "certificate of another cluster")
	})
	h.refuse.Store(false)
	<-h.links
}

// TestOversizedMessage sends a message that claims 1 GiB.
func TestOversizedMessage(t *testing.T) {
	t.Run("N2: a claimed size costs nothing and ends the link of the peer that claims it", func(t *testing.T) {
		h := newHub(t)
		conn, err := tls.Dial("tcp", h.address, &tls.Config{
			RootCAs: h.pool, Certificates: []tls.Certificate{h.cert},
			NextProtos: []string{tunnel.Protocol}, MinVersion: tls.VersionTLS13, ServerName: "localhost",
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		answers := callConnect(t, conn, []byte{0, 0x40, 0, 0, 0}) // not compressed, 1 GiB
		if status := <-answers; status != "8" {                   // RESOURCE_EXHAUSTED
			t.Errorf("grpc-status %q", status)
		}
	})
}
