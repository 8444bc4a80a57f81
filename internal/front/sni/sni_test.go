package sni_test

import (
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
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/sni"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// bed is the front end behind a port, with a link to an agent's end.
type bed struct {
	t      *testing.T
	port   *front.Port
	server *sni.Server
	pair   *muxtest.Pair
	cert   tls.Certificate
	roots  *x509.CertPool

	// admit and may refuse in Admit and Open.
	admit, may error

	mu      sync.Mutex
	opened  []front.Session
	refused []error
}

// Admit implements front.Sessions.
func (b *bed) Admit(context.Context, *front.Session) error { return b.admit }

// Refuse implements front.Sessions.
func (b *bed) Refuse(_ context.Context, _ *front.Session, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = append(b.refused, err)
}

// Open implements front.Sessions.
func (b *bed) Open(ctx context.Context, s *front.Session) (*mux.Session, error) {
	b.mu.Lock()
	b.opened = append(b.opened, *s)
	b.mu.Unlock()
	if b.may != nil {
		return nil, b.may
	}
	return b.pair.Dialler.Open(ctx, mux.Request{Target: s.Target, Payload: s.First})
}

func (b *bed) last() front.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.opened) == 0 {
		b.t.Fatal("nothing was opened")
	}
	return b.opened[len(b.opened)-1]
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ada"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"sealed.example.com", "bytes.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// newBed serves sealed.example.com, whose TLS passes through, and bytes.example.com.
func newBed(t *testing.T, change func(*sni.Config)) *bed {
	t.Helper()
	b := &bed{t: t, cert: selfSigned(t), roots: x509.NewCertPool(), pair: muxtest.New(t)}
	b.roots.AddCert(b.cert.Leaf)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ended := &tls.Config{Certificates: []tls.Certificate{b.cert}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	b.port = front.NewPort(ln, front.Config{Web: ended, Logger: log, ByName: func(name string) front.Named {
		switch name {
		case "sealed.example.com":
			return front.Named{Host: &route.Host{Cluster: "edge-1", Target: wire.KubernetesTLS(), PassThrough: true}}
		case "bytes.example.com":
			return front.Named{TLS: ended, Host: &route.Host{Cluster: "edge-1", Target: wire.Address("db", 5432)}}
		}
		return front.Named{}
	}})
	cfg := sni.Config{Sessions: b, Logger: log, Certificate: func(state tls.ConnectionState) (identity.Caller, bool, error) {
		if len(state.PeerCertificates) == 0 {
			return identity.Caller{}, false, nil
		}
		name := state.PeerCertificates[0].Subject.CommonName
		if name != "ada" {
			return identity.Caller{}, false, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("not ada")}
		}
		return identity.Caller{User: &user.DefaultInfo{Name: name}, Method: identity.MethodCertificate}, true, nil
	}}
	if change != nil {
		change(&cfg)
	}
	b.server = sni.New(cfg)
	var running sync.WaitGroup
	for _, serve := range []func() error{b.port.Serve, func() error { return b.server.Serve(b.port.Streams()) }} {
		running.Go(func() {
			if err := serve(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if err := b.port.Close(); err != nil {
			t.Error(err)
		}
		b.pair.Stop()
		b.server.Close()
		running.Wait()
	})
	return b
}

// dial connects for a name, and makes the handshake.
func (b *bed) dial(name string, change func(*tls.Config)) (*tls.Conn, error) {
	b.t.Helper()
	cfg := &tls.Config{RootCAs: b.roots, ServerName: name, MinVersion: tls.VersionTLS12}
	if change != nil {
		change(cfg)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", b.port.Addr().String(), cfg)
	if err == nil {
		b.t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	}
	return conn, err
}

// target ends the TLS of the next session, and echoes what is in it.
func (b *bed) target() {
	b.t.Helper()
	go func() {
		secure := tls.Server(<-b.pair.Accepted, &tls.Config{Certificates: []tls.Certificate{b.cert}, MinVersion: tls.VersionTLS12})
		_, _ = io.Copy(secure, secure) // the client sees what is wrong
		_ = secure.Close()
	}()
}

func TestPassThrough(t *testing.T) {
	b := newBed(t, nil)
	t.Run("D20: the target gets the ClientHello with the open, and ends the client's TLS", func(t *testing.T) {
		b.target()
		conn, err := b.dial("sealed.example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(conn); err != nil || string(text) != "hello" {
			t.Errorf("%q, %v", text, err)
		}
		s := b.last()
		if s.Caller.User.GetName() != identity.PassThroughUser || s.Cluster != "edge-1" || s.Target != wire.KubernetesTLS() ||
			len(s.First) == 0 || s.First[0] != 22 || !strings.HasPrefix(s.Source, "127.0.0.1:") {
			t.Errorf("%+v", s)
		}
	})
}

func TestTLSThatEndsHere(t *testing.T) {
	b := newBed(t, nil)
	with := func(pair tls.Certificate) func(*tls.Config) {
		return func(cfg *tls.Config) { cfg.Certificates = []tls.Certificate{pair} }
	}
	for title, c := range map[string]struct {
		change func(*tls.Config)
		caller string
	}{
		"D20: without a certificate the target judges":  {nil, identity.PassThroughUser},
		"D20: who shows a certificate is whom it names": {with(b.cert), "ada"},
	} {
		t.Run(title, func(t *testing.T) {
			conn, err := b.dial("bytes.example.com", c.change)
			if err != nil {
				t.Fatal(err)
			}
			session := <-b.pair.Accepted
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(session, got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
			if s := b.last(); s.Caller.User.GetName() != c.caller || len(s.First) != 0 || s.Target != wire.Address("db", 5432) {
				t.Errorf("%+v", s)
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
			if text, err := io.ReadAll(conn); err != nil || len(text) > 0 {
				t.Errorf("then %q, %v", text, err)
			}
		})
	}
	t.Run("D20: a certificate that names nobody ends the connection, and opens nothing", func(t *testing.T) {
		other := newBed(t, func(c *sni.Config) {
			c.Certificate = func(tls.ConnectionState) (identity.Caller, bool, error) {
				return identity.Caller{}, false, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("nobody")}
			}
		})
		conn, err := other.dial("bytes.example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("%v", err)
		}
		other.mu.Lock()
		defer other.mu.Unlock()
		if len(other.opened) != 0 || len(other.refused) != 1 {
			t.Errorf("%d opened, refused %v", len(other.opened), other.refused)
		}
	})
}

func TestRefusalsAreAlerts(t *testing.T) {
	refusal := func(code wire.Code) error {
		return &fault.Error{Hop: wire.HopHub, Op: "open", Code: code, Err: errors.New("no")}
	}
	for title, c := range map[string]struct {
		admit, may error
		want       string
	}{
		"D20: by the policy":         {nil, refusal(wire.CodePermissionDenied), "access denied"},
		"D20: no such cluster":       {nil, refusal(wire.CodeNotFound), "unrecognized name"},
		"D20: the agent is away":     {nil, refusal(wire.CodeUnavailable), "internal error"},
		"D20: by the network's rate": {refusal(wire.CodeTooManyRequests), nil, "internal error"},
	} {
		t.Run(title, func(t *testing.T) {
			b := newBed(t, nil)
			b.admit, b.may = c.admit, c.may
			if _, err := b.dial("sealed.example.com", nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestIdleStreamsAreCut(t *testing.T) {
	for _, name := range []string{"sealed.example.com", "bytes.example.com"} {
		t.Run("N2: "+name, func(t *testing.T) {
			b := newBed(t, func(c *sni.Config) { c.IdleTimeout = 200 * time.Millisecond })
			conn, err := net.DialTimeout("tcp", b.port.Addr().String(), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }() // it is cut
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			// Nobody answers the ClientHello that passes through.
			_ = tls.Client(conn, &tls.Config{RootCAs: b.roots, ServerName: name, MinVersion: tls.VersionTLS12}).Handshake()
			session := <-b.pair.Accepted
			for err = nil; err == nil; {
				_, err = session.Read(make([]byte, 4096))
			}
			if e, ok := errors.AsType[*mux.Error](err); !ok || e.Code != wire.CodeDeadlineExceeded || !strings.Contains(e.Message, "no byte for 200ms") {
				t.Errorf("the session ended with %v", err)
			}
			var wait net.Error
			if _, err := io.Copy(io.Discard, conn); errors.As(err, &wait) && wait.Timeout() {
				t.Error("the client's connection is still there")
			}
		})
	}
}

func TestClose(t *testing.T) {
	b := newBed(t, nil)
	conn, err := b.dial("bytes.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	session := <-b.pair.Accepted
	// The stream has begun once bytes go over it.
	if _, err := io.WriteString(conn, "begun"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(session, got); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { b.server.Close(); close(closed) }()
	// A stream that has begun goes on, and one that comes now is hung up.
	for hung := false; !hung; {
		late, err := b.dial("bytes.example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-b.pair.Accepted: // it was before the close
			_ = s.Close()
		case err := <-ended(late):
			hung = err == nil || !errors.Is(err, net.ErrClosed)
		}
	}
	if _, err := io.WriteString(conn, "still"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(session, got); err != nil || string(got) != "still" {
		t.Errorf("%q, %v", got, err)
	}
	select {
	case <-closed:
		t.Error("it has not waited for the stream")
	default:
	}
	if err := session.Close(); err != nil {
		t.Error(err)
	}
	_ = conn.Close() // the hub may have done so
	<-closed
}

// ended gives how a connection ends.
func ended(conn net.Conn) <-chan error {
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		end <- err
	}()
	return end
}
