package front_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// named makes a port that knows three names, and hands streams to got.
func named(t *testing.T, got func(*front.Stream)) *bed {
	t.Helper()
	b := newBed(t, func(c *front.Config) {
		web := c.Web
		c.ByName = func(name string) front.Named {
			switch name {
			case "", "web.example.com":
				return front.Named{TLS: web}
			case "sealed.example.com":
				return front.Named{Host: &route.Host{Cluster: "edge-1", Target: wire.KubernetesTLS(), PassThrough: true}}
			case "bytes.example.com":
				return front.Named{TLS: web, Host: &route.Host{Cluster: "edge-1", Target: wire.Address("db", 5432)}}
			}
			return front.Named{}
		}
	})
	go func() {
		for {
			c, err := b.port.Streams().Accept()
			if err != nil {
				return
			}
			stream, ok := c.(*front.Stream)
			if !ok {
				t.Errorf("a %T among streams", c)
				return
			}
			got(stream)
		}
	}()
	return b
}

func TestNames(t *testing.T) {
	streams := make(chan *front.Stream)
	b := named(t, func(s *front.Stream) { streams <- s })
	t.Run("D20: a name that nobody has gets the alert for it", func(t *testing.T) {
		_, err := b.dial(&tls.Config{ServerName: "other.example.com"})
		if err == nil || err.Error() != "remote error: tls: unrecognized name" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("N5: agents are told apart before names are", func(t *testing.T) {
		if said, err := b.dial(&tls.Config{ServerName: "other.example.com", InsecureSkipVerify: true, NextProtos: []string{enrol}}); said != "enrol" || err != nil {
			t.Errorf("%q, %v", said, err)
		}
	})
	t.Run("S4: TLS of the target passes whole, ClientHello included", func(t *testing.T) {
		cert, _ := certificate(t)
		ended := make(chan error, 1)
		go func() {
			s := <-streams
			if s.Name != "sealed.example.com" || s.Host.Cluster != "edge-1" || !bytes.HasPrefix(s.First, []byte{22, 3, 1}) {
				t.Errorf("got %q, %+v, % x", s.Name, s.Host, s.First[:3])
			}
			// The target's TLS, on what the port gave.
			server := tls.Server(&replay{Conn: s, first: s.First}, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
			_, err := io.WriteString(server, "target")
			ended <- errors.Join(err, server.Close())
		}()
		if said, err := b.dial(&tls.Config{ServerName: "sealed.example.com", InsecureSkipVerify: true}); said != "target" || err != nil {
			t.Errorf("%q, %v", said, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("S4: also a ClientHello that comes byte by byte", func(t *testing.T) {
		done := make(chan int, 1)
		go func() {
			s := <-streams
			done <- len(s.First)
			_ = s.Close()
		}()
		raw, err := net.Dial("tcp", b.port.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		hello := helloOf(t, "sealed.example.com")
		for _, c := range hello {
			if _, err := raw.Write([]byte{c}); err != nil {
				t.Fatal(err)
			}
		}
		if n := <-done; n != len(hello) {
			t.Errorf("%d bytes of %d", n, len(hello))
		}
		// Nothing of the hub's TLS was said.
		if said, _ := io.ReadAll(raw); len(said) > 0 {
			t.Errorf("the port said % x", said)
		}
		_ = raw.Close()
	})
	t.Run("D19: what is in the TLS goes on", func(t *testing.T) {
		go func() {
			s := <-streams
			if len(s.First) != 0 || s.Host.Target != wire.Address("db", 5432) {
				t.Errorf("got %+v, % x", s.Host, s.First)
			}
			_, _ = io.WriteString(s, "in the clear")
			_ = s.Close()
		}()
		if said, err := b.dial(&tls.Config{ServerName: "bytes.example.com", InsecureSkipVerify: true}); said != "in the clear" || err != nil {
			t.Errorf("%q, %v", said, err)
		}
	})
}

// replay gives first before what comes from the connection.
type replay struct {
	net.Conn

	first []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// helloOf returns a ClientHello for a name.
func helloOf(t *testing.T, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // ends with the pipe
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	return slices.Concat(head, body)
}

func TestBalancers(t *testing.T) {
	client := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 40001}
	six := &net.TCPAddr{IP: net.ParseIP("2001:db8::9"), Port: 40001}
	hub := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	header := func(version byte, from net.Addr) []byte {
		out, err := proxyproto.HeaderProxyFromAddrs(version, from, hub).Format()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	local := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	check, err := local.Format()
	if err != nil {
		t.Fatal(err)
	}
	listed := func(c *front.Config) { c.Balancers = front.Balancers{netip.MustParsePrefix("127.0.0.0/8")} }
	for _, c := range []struct {
		title  string
		header []byte
		remote string // as the front end sees it; "" where it is refused
	}{
		{"D4: version 1 says where the client is", header(1, client), "203.0.113.9:40001"},
		{"D4: and version 2", header(2, client), "203.0.113.9:40001"},
		{"D4: of IPv6, too", []byte("PROXY TCP6 2001:db8::9 2001:db8::1 40001 443\r\n"), six.String()},
		{"D4: a health check keeps the load balancer's address", check, "127.0.0.1:"},
		{"D4: without a header it is refused", nil, ""},
		{"D4: with a broken one, too", []byte("PROXY TCP4 203.0.113.9 nonsense 1 2\r\n"), ""},
		{"D4: one that never ends is bounded", []byte("PROXY TCP4 " + strings.Repeat("1", 4096)), ""},
	} {
		t.Run(c.title, func(t *testing.T) {
			b := newBed(t, listed)
			raw, err := net.Dial("tcp", b.port.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = raw.Close() }()
			if _, err := raw.Write(c.header); err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, &tls.Config{RootCAs: b.pool, ServerName: "127.0.0.1"})
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			said, err := io.ReadAll(conn)
			if c.remote == "" {
				if len(said) > 0 {
					t.Fatalf("it got through to %q", said)
				}
				return
			}
			if string(said) != "web" || err != nil {
				t.Fatalf("%q, %v", said, err)
			}
			if got := b.remotes(); len(got) != 1 || !strings.HasPrefix(got[0], c.remote) {
				t.Errorf("the front end sees %v, want %s", got, c.remote)
			}
		})
	}
	t.Run("D4: nobody else is believed", func(t *testing.T) {
		b := newBed(t, func(c *front.Config) { c.Balancers = front.Balancers{netip.MustParsePrefix("10.0.0.0/8")} })
		raw, err := net.Dial("tcp", b.port.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = raw.Close() }()
		if _, err := raw.Write(header(1, client)); err != nil {
			t.Fatal(err)
		}
		if err := tls.Client(raw, &tls.Config{RootCAs: b.pool, ServerName: "127.0.0.1"}).Handshake(); err == nil {
			t.Error("a header from anybody was taken")
		}
	})
}
