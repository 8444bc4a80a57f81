package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve returns a function that opens a connection with an operation.
func serve(t *testing.T) func(op byte, numbers ...uint64) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var s Server
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(op byte, numbers ...uint64) *net.TCPConn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(Request(op, numbers...)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
}

func TestEcho(t *testing.T) {
	c := serve(t)(Echo)
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "abc" {
		t.Errorf("got %q %v", got, err)
	}
}

func TestSourceAndSink(t *testing.T) {
	open := serve(t)
	from, to := open(Source), open(Sink)
	block := make([]byte, 3*BlockSize)
	if _, err := io.ReadFull(from, block); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(block[:BlockSize], Block()) || !bytes.Equal(block[BlockSize:2*BlockSize], Block()) {
		t.Error("the source sends something else than its block")
	}
	if _, err := to.Write(block); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for last == 0 {
		var count [8]byte
		if _, err := io.ReadFull(to, count[:]); err != nil {
			t.Fatal(err)
		}
		last = binary.BigEndian.Uint64(count[:])
	}
	if last > uint64(len(block)) {
		t.Errorf("the sink has read %d of %d bytes", last, len(block))
	}
}

func TestGenerateAndRecall(t *testing.T) {
	open := serve(t)
	const n, seed = 300_001, 9
	c := open(Generate, n, seed)
	want, err := io.ReadAll(io.LimitReader(Stream(seed), n))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, want %d of the stream: %v", len(got), n, err)
	}
	if _, err := c.Write(want[:1000]); err != nil { // after the other direction has ended
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(want[:1000])
	if got, err := io.ReadAll(open(Recall, seed)); err != nil || !bytes.Equal(got, sum[:]) {
		t.Errorf("recalled %x, want %x: %v", got, sum, err)
	}
}

func TestDigest(t *testing.T) {
	open := serve(t)
	data := []byte("some bytes")
	sum := sha256.Sum256(data)
	for title, n := range map[string]uint64{"counted": uint64(len(data)), "to the end": 0} {
		c := open(Digest, n)
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sum[:]) {
			t.Errorf("%s: got %x %v", title, got, err)
		}
	}
	c := open(Digest, 100)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || len(got) != 0 {
		t.Errorf("a stream that ended early was answered with %x %v", got, err)
	}
}

func TestNames(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ServeNames(ctx, conn, netip.MustParseAddr("192.0.2.1")) }()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	got, err := r.LookupHost(t.Context(), "web.bench.svc.cluster.local.")
	if err != nil || len(got) != 1 || got[0] != "192.0.2.1" {
		t.Errorf("got %v %v", got, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
