package tlsio_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/tlsio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate is a self-signed one, which the tests' clients trust.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"far"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
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

// counted counts the writes that reach the system.
type counted struct {
	*net.TCPConn

	mu     sync.Mutex
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.TCPConn.Write(p)
}

func (c *counted) SyscallConn() (syscall.RawConn, error) { return c.TCPConn.SyscallConn() }

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// pair returns both ends of a TLS connection over TCP, handshake done.
func pair(t *testing.T) (near, far *tlsio.Conn, raw *counted) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cert, pool := certificate(t)
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	raw = &counted{TCPConn: dialled.(*net.TCPConn)}
	near = tlsio.Client(raw, &tls.Config{RootCAs: pool, ServerName: "far", MinVersion: tls.VersionTLS13})
	far = tlsio.Server(accepted, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	t.Cleanup(func() {
		_ = near.Close() // may be closed by the test
		_ = far.Close()
	})
	shaken := make(chan error, 1)
	go func() { shaken <- far.Handshake() }()
	if err := errors.Join(near.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	near.Bulk()
	far.Bulk()
	return near, far, raw
}

func TestBytes(t *testing.T) {
	near, far, _ := pair(t)
	const total = 8 << 20
	payload := make([]byte, total)
	if _, err := rand.Read(payload); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	send := func(c *tlsio.Conn) {
		for p := payload; len(p) > 0; {
			n := min(len(p), 1+mathrand.IntN(600<<10))
			if mathrand.IntN(3) == 0 {
				n = min(n, 100)
			}
			if _, err := c.Write(p[:n]); err != nil {
				t.Error(err)
				return
			}
			p = p[n:]
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	}
	receive := func(c *tlsio.Conn) {
		sum := sha256.New()
		buf := make([]byte, 100<<10)
		for {
			n, err := c.Read(buf[:1+mathrand.IntN(len(buf))])
			sum.Write(buf[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
		if want := sha256.Sum256(payload); !bytes.Equal(sum.Sum(nil), want[:]) {
			t.Error("other bytes arrived than were sent")
		}
	}
	for _, c := range []*tlsio.Conn{near, far} {
		running.Go(func() { send(c) })
		running.Go(func() { receive(c) })
	}
	running.Wait()
}

func TestConcurrentWritersStayWhole(t *testing.T) {
	near, far, _ := pair(t)
	const writers, each, size = 4, 50, 40 << 10
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			p := bytes.Repeat([]byte{byte(w)}, size)
			for range each {
				if _, err := near.Write(p); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	buf := make([]byte, size)
	for range writers * each {
		if _, err := io.ReadFull(far, buf); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, bytes.Repeat(buf[:1], size)) {
			t.Fatal("two writes were mixed")
		}
	}
	running.Wait()
}

func TestOneSystemCallForManyRecords(t *testing.T) {
	near, far, raw := pair(t)
	read := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, far, 4<<20)
		read <- err
	}()
	p := make([]byte, 128<<10)
	if _, err := near.Write(p[:2<<20/32]); err != nil { // crypto/tls begins with small records
		t.Fatal(err)
	}
	for sent := 2 << 20 / 32; sent < 2<<20; sent += len(p) / 2 {
		if _, err := near.Write(p[:len(p)/2]); err != nil {
			t.Fatal(err)
		}
	}
	before := raw.count()
	for range 16 {
		if _, err := near.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := raw.count() - before; n != 16 {
		t.Errorf("16 writes of 8 records each took %d system calls", n)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

func TestDeadlineAndEnd(t *testing.T) {
	near, far, _ := pair(t)
	if err := near.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := near.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("read past the deadline gave %v", err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(near); err != nil || string(got) != "last" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestCloseDoesNotWaitForAStuckWrite(t *testing.T) {
	began := time.Now()
	near, _, _ := pair(t)
	pace := time.Since(began) // of a connection's begin, on a machine as busy as this one
	ended := make(chan error, 1)
	progress := make(chan struct{})
	go func() {
		p := make([]byte, 256<<10)
		for {
			if _, err := near.Write(p); err != nil {
				ended <- err
				return
			}
			select {
			case progress <- struct{}{}:
			case <-time.After(10 * time.Second):
				ended <- errors.New("the test has gone")
				return
			}
		}
	}()
	stuck := false
	for !stuck {
		select {
		case <-progress:
		case <-time.After(500 * time.Millisecond): // nobody reads, and every buffer is full
			stuck = true
		}
	}
	start := time.Now()
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stuck write ended with %v", err)
	}
	if took := time.Since(start); took > 2*time.Second+10*pace {
		t.Errorf("close took %v, where a connection begins in %v", took, pace)
	}
	if _, err := near.Write(make([]byte, 64<<10)); err == nil {
		t.Error("a write after Close did not fail")
	}
}

func TestConnectionWithoutDescriptor(t *testing.T) {
	a, b := net.Pipe()
	cert, pool := certificate(t)
	near := tlsio.Client(a, &tls.Config{RootCAs: pool, ServerName: "far", MinVersion: tls.VersionTLS13})
	far := tlsio.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	near.Bulk()
	far.Bulk()
	sent := make(chan error, 1)
	go func() {
		_, err := far.Write(make([]byte, 100<<10))
		sent <- errors.Join(err, far.Close())
	}()
	got, err := io.ReadAll(near)
	if err != nil || len(got) != 100<<10 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	_ = near.Close() // has nobody to tell: a pipe knows no half-close
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
