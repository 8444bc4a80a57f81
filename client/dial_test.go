package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

// listen returns a listener of the loopback interface.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

// echo answers each connection with what it sends, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l := listen(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // the client compares
				if tcp, ok := conn.(*net.TCPConn); ok {
					_ = tcp.CloseWrite()
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// pair is a target that joins two connections.
type pair struct {
	address string
	end     func() // and what has been joined
}

// joinPair starts a pair.
func joinPair(t *testing.T) pair {
	t.Helper()
	l := listen(t)
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []*net.TCPConn
	running.Go(func() {
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn.(*net.TCPConn))
			mu.Unlock()
		}
		for i := range conns {
			running.Go(func() {
				to, from := conns[i], conns[1-i]
				_, _ = io.Copy(to, from) // the ends compare
				_ = to.CloseWrite()
			})
		}
	})
	return pair{l.Addr().String(), func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	}}
}

func TestConn(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	c := hub.Client(t)
	for name, dial := range map[string]func(context.Context, string, string, string) (net.Conn, error){
		"DialContext": c.DialContext, "DialEarly": c.DialEarly,
	} {
		t.Run("N4: "+name+" gives a complete net.Conn", func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return nil, nil, nil, err
				}
				defer l.Close()
				if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					return nil, nil, nil, err
				}
				if c1, err = dial(t.Context(), "test", "tcp", l.Addr().String()); err != nil {
					return nil, nil, nil, err
				}
				if _, err := c1.Write(nil); err != nil { // opens an early one
					return nil, nil, nil, err
				}
				if c2, err = l.Accept(); err != nil {
					return nil, nil, nil, err
				}
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
	t.Run("N4: DialEarly gives a complete net.Conn before it is open, too", func(t *testing.T) {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			joined := joinPair(t)
			for _, end := range []*net.Conn{&c1, &c2} {
				if *end, err = c.DialEarly(t.Context(), "test", "tcp", joined.address); err != nil {
					return nil, nil, nil, err
				}
			}
			return c1, c2, func() { c1.Close(); c2.Close(); joined.end() }, nil
		})
	})
	t.Run("N4: the halves end one by one", func(t *testing.T) {
		conn, err := c.DialEarly(t.Context(), "test", "tcp", echo(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() {
			if _, err := conn.(io.ReaderFrom).ReadFrom(bytes.NewReader(sent)); err != nil {
				t.Error(err)
			}
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		if a := conn.RemoteAddr(); a.Network() != "tcp" || a.(client.Addr).Cluster != "test" {
			t.Errorf("remote address %v", a)
		}
	})
}

func TestDialErrors(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{Clusters: []string{"test", "away"}, Policy: `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: local, effect: allow, tcp: [{hosts: [no-such-host.invalid], ports: ["*"]}, {cidrs: [127.0.0.0/8], ports: ["*"]}]}
`})
	hub.StopAgent(t, "away")
	c := hub.Client(t)
	closed := listen(t)
	closed.Close()
	for _, tt := range []struct {
		name, cluster, network, address string
		code                            client.Code
		hop                             client.Hop
		is                              error
	}{
		{"nothing listens", "test", "tcp", closed.Addr().String(), client.ConnectionRefused, client.HopTarget, syscall.ECONNREFUSED},
		{"no such name", "test", "tcp", "no-such-host.invalid:80", client.NotFound, client.HopAgent, nil},
		{"no such cluster", "nobody", "tcp", "127.0.0.1:80", client.NotFound, client.HopHub, nil},
		{"the agent is away", "away", "tcp", "127.0.0.1:80", client.Unavailable, client.HopHub, nil},
		{"the policy forbids it", "test", "tcp", "192.0.2.1:80", client.PermissionDenied, client.HopHub, nil},
		{"no port", "test", "tcp", "127.0.0.1", client.InvalidTarget, client.HopClient, nil},
		{"no name of a cluster", "Test", "tcp", "127.0.0.1:80", client.InvalidTarget, client.HopClient, nil},
		{"another network", "test", "udp", "127.0.0.1:80", client.InvalidTarget, client.HopClient, nil},
		{"another family", "test", "tcp6", "127.0.0.1:80", client.InvalidTarget, client.HopClient, nil},
	} {
		t.Run("K15: "+tt.name, func(t *testing.T) {
			check := func(t *testing.T, err error) {
				t.Helper()
				e, ok := errors.AsType[*client.Error](err)
				if !ok || e.Code != tt.code || e.Hop != tt.hop || e.Cluster != tt.cluster || e.Target != tt.address {
					t.Errorf("got %#v: %v, want %q at %q", e, err, tt.code, tt.hop)
				}
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("%v is not %v", err, tt.is)
				}
			}
			_, err := c.DialContext(t.Context(), tt.cluster, tt.network, tt.address)
			check(t, err)
			conn, err := c.DialEarly(t.Context(), tt.cluster, tt.network, tt.address)
			if err == nil {
				defer conn.Close()
				if _, err = conn.Write([]byte("hello")); err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
			}
			check(t, err)
		})
	}
	t.Run("a context that ends is its own error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // it is no matter of luck, though there is a link
			if _, err := c.DialEarly(ctx, "test", "tcp", "127.0.0.1:80"); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			if _, err := c.DialContext(ctx, "test", "tcp", "127.0.0.1:80"); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
		}
	})
	t.Run("a deadline that has passed fails an early connection, and a later one mends it", func(t *testing.T) {
		conn, err := c.DialEarly(t.Context(), "test", "tcp", echo(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Errorf("got %v", err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestManyDialsShareOneConnection(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	l := &counted{Listener: listen(t)}
	go l.relay(t, hub.URL[len("https://"):])
	cfg := hub.Config()
	cfg.Hub = "https://" + l.Addr().String()
	cfg.ServerName = "localhost"
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	address := echo(t)
	var dials sync.WaitGroup
	for range 1000 {
		dials.Go(func() {
			conn, err := c.DialContext(t.Context(), "test", "tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("ping")); err != nil {
				t.Error(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	dials.Wait()
	if n := l.count(); n != 1 {
		t.Errorf("F2,K15: 1000 dials took %d connections to the hub", n)
	}
}

// counted relays connections to a hub, counts them, and can cut them.
type counted struct {
	net.Listener

	mu    sync.Mutex
	n     int
	conns []net.Conn
	done  sync.WaitGroup
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// cut ends the connections that there are, as a lost network does.
func (c *counted) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func (c *counted) relay(t *testing.T, to string) {
	t.Cleanup(c.done.Wait)
	t.Cleanup(c.cut)
	for {
		from, err := c.Accept()
		if err != nil {
			return
		}
		hub, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		c.mu.Lock()
		c.n++
		c.conns = append(c.conns, from, hub)
		c.mu.Unlock()
		for _, pair := range [][2]net.Conn{{from, hub}, {hub, from}} {
			c.done.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // what is cut shows at the client
				pair[0].Close()
			})
		}
	}
}
