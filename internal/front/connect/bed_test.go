package connect_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/connect"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	patience = 20 * time.Second
	token    = "tok-ada"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bed is the front end on a plain and on a TLS listener, with real links to an
// agent's end that dials for itself.
type bed struct {
	t       *testing.T
	plain   string
	secure  string
	roots   *x509.CertPool
	caPEM   []byte
	log     *logBuffer
	pair    *muxtest.Pair
	targets sync.Map // host:port as it is asked for, to the address that it is, or to what serves its sessions

	// mayOpen is asked by Open before it opens; nil allows everything.
	mayOpen func(s *front.Session) error

	mu      sync.Mutex
	refused []error
	opened  []front.Session

	// written counts the bytes that the plain listener's connections were sent.
	written atomic.Int64
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Admit implements front.Sessions.
func (b *bed) Admit(context.Context, *front.Session) error { return nil }

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
	if b.mayOpen != nil {
		if err := b.mayOpen(s); err != nil {
			return nil, err
		}
	}
	stream, err := b.pair.Dialler.Open(ctx, mux.Request{Target: s.Target})
	if refused := (*mux.Error)(nil); errors.As(err, &refused) {
		return nil, &fault.Error{Hop: refused.Hop, Op: "open", Code: refused.Code, Cluster: s.Cluster, Err: errors.New(refused.Message)}
	}
	return stream, err
}

// sessions are those that were asked for so far.
func (b *bed) sessions() []front.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.opened)
}

// serve is the agent's end.
func (b *bed) serve(ctx context.Context, in *mux.Incoming) {
	target := in.Target()
	address, known := b.targets.Load(netJoin(target))
	if !known {
		in.Refuse(wire.CodeNotFound, wire.HopTarget, "no such name "+target.Host+" in the agent's DNS")
		return
	}
	if whole, ok := address.(func(*mux.Session)); ok {
		session, err := in.Accept()
		if err == nil {
			whole(session)
		}
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.(string))
	if err != nil {
		in.Refuse(wire.CodeConnectionRefused, wire.HopTarget, err.Error())
		return
	}
	session, err := in.Accept()
	if err != nil {
		conn.Close()
		return
	}
	splice.Join(session, conn.(*net.TCPConn), wire.HopTarget)
}

func netJoin(t wire.Target) string {
	return net.JoinHostPort(t.Host, (&net.TCPAddr{Port: int(t.PortNumber)}).String()[1:])
}

func newBed(t *testing.T, change func(*connect.Config)) *bed {
	t.Helper()
	b := &bed{t: t, log: &logBuffer{}}
	b.pair = muxtest.New(t, func(_, acceptor *mux.Config) { acceptor.Handler = b.serve })
	routes, err := connect.NewRoutes([]connect.Rule{
		{Hosts: []string{"*.edge-1.internal"}, CIDRs: []string{"10.1.0.0/16", "127.0.0.0/8"}, Cluster: "edge-1"},
	})
	ok(t, err)
	ports, err := policy.ParsePorts([]string{"consoles", "ssl"})
	ok(t, err)
	cfg := connect.Config{
		Sessions: b, Identify: identify, Routes: routes, Ports: ports,
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := connect.New(cfg)
	ok(t, err)

	certificate, caPEM := selfSigned(t)
	b.caPEM, b.roots = caPEM, x509.NewCertPool()
	b.roots.AppendCertsFromPEM(caPEM)
	plain, secure := listen(t), listen(t)
	b.plain, b.secure = plain.Addr().String(), secure.Addr().String()
	b.run(h.Server(), connect.Restrict(&counting{plain, &b.written}, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, cfg.Logger))
	b.run(h.Server(), tls.NewListener(secure, &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: connect.Protocols(), MinVersion: tls.VersionTLS12,
	}))
	return b
}

// run serves until the end of the test, when the links have ended.
func (b *bed) run(server *http.Server, ln net.Listener) {
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	b.t.Cleanup(func() {
		b.pair.Stop()
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			b.t.Errorf("serve: %v", err)
		}
	})
}

// counting counts what its connections are sent.
type counting struct {
	net.Listener

	n *atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{conn.(*net.TCPConn), l.n}, nil
}

type counted struct {
	*net.TCPConn

	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p))) // first, since the peer may read at once
	return c.TCPConn.Write(p)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	return ln
}

// identify knows one token, and takes the certificate of a connection for ada's.
func identify(r *http.Request, cluster string) (identity.Caller, error) {
	ada := &user.DefaultInfo{Name: "ada"}
	switch credential := r.Header.Get("Authorization"); {
	case cluster != "":
		return identity.Caller{}, errors.New("a cluster was asked for")
	case credential == "Bearer "+token:
		return identity.Caller{User: ada, Method: identity.MethodStaticToken}, nil
	case credential == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		return identity.Caller{User: ada, Method: identity.MethodCertificate}, nil
	}
	return identity.Caller{}, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("wrong token")}
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxy"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ok(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// target serves one connection after the other by f, and is reached as name.
func (b *bed) target(name string, f func(*net.TCPConn)) {
	b.t.Helper()
	ln := listen(b.t)
	b.targets.Store(name, ln.Addr().String())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				f(conn.(*net.TCPConn))
			})
		}
	})
	b.t.Cleanup(func() {
		ln.Close()
		b.pair.Stop()
		all.Wait()
	})
}

// client is a connection to the front end.
type client struct {
	net.Conn

	t *testing.T
	r *bufio.Reader
}

func (b *bed) dialPlain() *client {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.plain)
	ok(b.t, err)
	return b.client(conn)
}

func (b *bed) dialTLS(protocols ...string) *client {
	b.t.Helper()
	conn, err := tls.Dial("tcp", b.secure, &tls.Config{RootCAs: b.roots, NextProtos: protocols})
	ok(b.t, err)
	return b.client(conn)
}

func (b *bed) client(conn net.Conn) *client {
	b.t.Helper()
	ok(b.t, conn.SetDeadline(time.Now().Add(patience)))
	b.t.Cleanup(func() { conn.Close() })
	return &client{Conn: conn, t: b.t, r: bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	ok(c.t, err)
}

func (c *client) answer() *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodConnect})
	ok(c.t, err)
	return res
}

// head is a CONNECT of HTTP/1.1 with the token.
func head(authority string, fields ...string) string {
	text := "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\nProxy-Authorization: Bearer " + token + "\r\n"
	for _, field := range fields {
		text += field + "\r\n"
	}
	return text + "\r\n"
}
