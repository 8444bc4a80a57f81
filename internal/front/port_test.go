package front_test

import (
	"bytes"
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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/front"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	protocol = "culvert.tunnel.v1"
	enrol    = "culvert.enrol.v1"
)

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
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
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

type bed struct {
	port *front.Port
	pool *x509.CertPool
	log  *syncBuffer

	mu   sync.Mutex
	from []string
}

// remotes returns where connections came from that a front end got.
func (b *bed) remotes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.from)
}

// newBed serves a port whose listeners say which of them they are.
func newBed(t *testing.T, change func(*front.Config)) *bed {
	t.Helper()
	cert, pool := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{pool: pool, log: &syncBuffer{}}
	cfg := front.Config{
		TunnelProtocol: protocol, EnrolProtocol: enrol,
		Tunnel: &tls.Config{
			Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS13,
			ClientAuth:       tls.RequireAnyClientCert,
			VerifyConnection: func(tls.ConnectionState) error { return errors.New("agent certificate: not of this hub") },
		},
		Enrol:            &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{enrol}, MinVersion: tls.VersionTLS13},
		Web:              &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12},
		HandshakeTimeout: patience,
		Logger:           slog.New(slog.NewTextHandler(b.log, nil)),
	}
	change(&cfg)
	b.port = front.NewPort(ln, cfg)
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.port.Serve(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for name, l := range map[string]net.Listener{"tunnel": b.port.Tunnel(), "enrol": b.port.Enrol(), "web": b.port.Web()} {
		running.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				b.mu.Lock()
				b.from = append(b.from, c.RemoteAddr().String())
				b.mu.Unlock()
				_, _ = io.WriteString(c, name) // the client checks
				_ = c.Close()
			}
		})
	}
	t.Cleanup(func() {
		if err := b.port.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		running.Wait()
	})
	return b
}

// dial makes a handshake and returns what the listener behind it says.
func (b *bed) dial(cfg *tls.Config) (string, error) {
	cfg.RootCAs, cfg.MinVersion = b.pool, tls.VersionTLS12
	c, err := tls.Dial("tcp", b.port.Addr().String(), cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	said, err := io.ReadAll(c)
	return string(said), err
}

func TestKindsShareAPort(t *testing.T) {
	cert, _ := certificate(t)
	t.Run("D3: clients and agents are told apart by what they offer, clients are not asked for a certificate", func(t *testing.T) {
		asked := false
		b := newBed(t, func(c *front.Config) { c.Tunnel.VerifyConnection = nil })
		client := &tls.Config{NextProtos: []string{"h2"}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &cert, nil
		}}
		if said, err := b.dial(client); said != "web" || err != nil {
			t.Errorf("client: %q, %v", said, err)
		}
		if asked {
			t.Error("a client was asked for a certificate")
		}
		agent := &tls.Config{NextProtos: []string{protocol}, Certificates: []tls.Certificate{cert}}
		if said, err := b.dial(agent); said != "tunnel" || err != nil {
			t.Errorf("agent: %q, %v", said, err)
		}
	})
	t.Run("P1: a foreign agent certificate is refused at the handshake with one line that says why", func(t *testing.T) {
		b := newBed(t, func(*front.Config) {})
		agent := &tls.Config{NextProtos: []string{protocol}, Certificates: []tls.Certificate{cert}}
		if said, err := b.dial(agent); err == nil {
			t.Fatalf("the agent got through to %q", said)
		}
		// The client may know of the refusal before the port has written its line.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(patience); b.log.String() == ""; {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("no line within %v", patience)
			}
		}
		if got := b.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "not of this hub") || !strings.Contains(got, "127.0.0.1") {
			t.Errorf("log: %s", got)
		}
	})
	t.Run("P1: an agent without a certificate is refused", func(t *testing.T) {
		b := newBed(t, func(*front.Config) {})
		if said, err := b.dial(&tls.Config{NextProtos: []string{protocol}}); err == nil {
			t.Fatalf("the agent got through to %q", said)
		}
	})
	t.Run("O6: an agent without a certificate reaches enrolment and nothing else, in TLS 1.3 alone", func(t *testing.T) {
		b := newBed(t, func(*front.Config) {})
		if said, err := b.dial(&tls.Config{NextProtos: []string{enrol}}); said != "enrol" || err != nil {
			t.Errorf("%q, %v", said, err)
		}
		if said, err := b.dial(&tls.Config{NextProtos: []string{enrol, "h2"}}); said != "enrol" || err != nil {
			t.Errorf("offered with others: %q, %v", said, err)
		}
		if said, err := b.dial(&tls.Config{NextProtos: []string{enrol, protocol}}); err == nil {
			t.Errorf("with the tunnel it got through to %q", said)
		}
		if said, err := b.dial(&tls.Config{NextProtos: []string{enrol}, MaxVersion: tls.VersionTLS12}); err == nil {
			t.Errorf("with TLS 1.2 it got through to %q", said)
		}
	})
	t.Run("O6: a port without enrolment refuses it", func(t *testing.T) {
		b := newBed(t, func(c *front.Config) { c.Enrol = nil })
		if said, err := b.dial(&tls.Config{NextProtos: []string{enrol}}); err == nil {
			t.Errorf("it got through to %q", said)
		}
	})
	t.Run("D9: a port for agents alone refuses clients", func(t *testing.T) {
		b := newBed(t, func(c *front.Config) { c.Web = nil })
		if said, err := b.dial(&tls.Config{NextProtos: []string{"h2"}}); err == nil {
			t.Fatalf("the client got through to %q", said)
		}
	})
}

// hasty has little time for handshakes, for tests of what is cut when it is over.
func hasty(c *front.Config) { c.HandshakeTimeout = 300 * time.Millisecond }

func TestBrokenClientsEnd(t *testing.T) {
	for name, say := range map[string]string{
		"nothing":       "",
		"plain HTTP":    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a record": "\x16\x03\x01\x02\x00\x01",
		"huge record":   "\x16\x03\x01\xff\xff" + strings.Repeat("x", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, hasty)
			c, err := net.Dial("tcp", b.port.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, say); err != nil {
				t.Logf("the port hung up early: %v", err)
			}
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, c)
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Error("the port keeps the connection open")
			}
		})
	}
	t.Run("the bound on handshakes holds clients back and lets them in later", func(t *testing.T) {
		b := newBed(t, func(c *front.Config) { hasty(c); c.MaxHandshakes = 1 })
		silent, err := net.Dial("tcp", b.port.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
		said, err := b.dial(&tls.Config{NextProtos: []string{"h2"}})
		// On a busy machine a client may itself be too slow for so short a time.
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
			said, err = b.dial(&tls.Config{NextProtos: []string{"h2"}})
		}
		if said != "web" || err != nil {
			t.Errorf("behind a silent client: %q, %v", said, err)
		}
	})
}
