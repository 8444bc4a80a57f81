package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/proxy"

	"github.com/culvertdev/culvert/internal/forward"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialled is what the last dial was for.
type dialled struct {
	mu               sync.Mutex
	cluster, address string
}

func (d *dialled) set(cluster, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cluster, d.address = cluster, address
}

func (d *dialled) get() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cluster + " " + d.address
}

// start serves s with an echo behind it, and returns its address.
func start(t *testing.T, s *Server) (address string, last *dialled) {
	t.Helper()
	var running sync.WaitGroup
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	last = new(dialled)
	if s.Dial == nil {
		s.Dial = func(ctx context.Context, cluster, _, address string) (net.Conn, error) {
			last.set(cluster, address)
			return new(net.Dialer).DialContext(ctx, "tcp", echo.Addr().String())
		}
	}
	if s.Explain == nil {
		s.Explain = func(error) Reply { return GeneralFailure }
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- forward.NewServer(forward.Config{}).Serve(ctx, forward.Listener{Listener: ln, Open: s.Open})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = echo.Close()
		running.Wait()
	})
	return ln.Addr().String(), last
}

func TestClusterOfAConnection(t *testing.T) {
	fixed, toFixed := start(t, &Server{Cluster: "edge-1"})
	open, toOpen := start(t, &Server{})
	user := func(name string) *proxy.Auth { return &proxy.Auth{User: name, Password: "any"} }
	for _, c := range []struct {
		name, server, address string
		auth                  *proxy.Auth
		want                  string
	}{
		{"one for all", fixed, "db.prod:5432", nil, "edge-1 db.prod:5432"},
		{"one for all, whatever the user is called", fixed, "db.prod:5432", user("edge-2"), "edge-1 db.prod:5432"},
		{"one for all, whatever the name ends in", fixed, "db.edge-2.culvert:5432", nil, "edge-1 db.edge-2.culvert:5432"},
		{"by user name", open, "DB.prod.:5432", user("edge-2"), "edge-2 db.prod:5432"},
		{"by suffix", open, "db.prod.edge-3.culvert:5432", nil, "edge-3 db.prod:5432"},
		{"by suffix before the user name", open, "db.prod.Edge-3.Culvert.:5432", user("edge-2"), "edge-3 db.prod:5432"},
		{"IPv4", open, "192.0.2.7:80", user("edge-2"), "edge-2 192.0.2.7:80"},
		{"IPv4 by suffix", open, "192.0.2.7.edge-2.culvert:80", nil, "edge-2 192.0.2.7:80"},
		{"IPv6", open, "[2001:db8::7]:80", user("edge-2"), "edge-2 [2001:db8::7]:80"},
		{"IPv4 in IPv6", open, "[::ffff:192.0.2.7]:80", user("edge-2"), "edge-2 192.0.2.7:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dialer, err := proxy.SOCKS5("tcp", c.server, c.auth, nil)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := dialer.Dial("tcp", c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if got := make([]byte, 5); func() error { _, err := io.ReadFull(conn, got); return err }() != nil || string(got) != "hello" {
				t.Errorf("echo %q", got)
			}
			last := toOpen
			if c.server == fixed {
				last = toFixed
			}
			if got := last.get(); got != c.want {
				t.Errorf("dialled %q, want %q", got, c.want)
			}
		})
	}
}

// exchange sends text at once and returns all that comes back.
func exchange(t *testing.T, address, text string) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	return string(got), err
}

const (
	hello   = "\x05\x01\x00"
	granted = "\x05\x00"
)

func reply(r Reply) string { return string(replyTo(r)) }

func TestRefusals(t *testing.T) {
	fixed, _ := start(t, &Server{Cluster: "edge-1"})
	open, _ := start(t, &Server{})
	for _, c := range []struct{ name, server, text, want string }{
		{"BIND", fixed, hello + "\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50early", granted + reply(CommandNotSupported)},
		{"UDP ASSOCIATE", fixed, hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", granted + reply(CommandNotSupported)},
		{"type of address", fixed, hello + "\x05\x01\x00\x02\x00\x00\x00\x00\x00\x50", granted + reply(AddressNotSupported)},
		{"a host that some resolvers take for an address", fixed, hello + "\x05\x01\x00\x03\x05127.1\x00\x50", granted + reply(GeneralFailure)},
		{"no host", fixed, hello + "\x05\x01\x00\x03\x00\x00\x50", granted + reply(GeneralFailure)},
		{"port 0", fixed, hello + "\x05\x01\x00\x03\x02db\x00\x00", granted + reply(GeneralFailure)},
		{"no cluster", open, hello + "\x05\x01\x00\x03\x02db\x00\x50", granted + reply(NotAllowed)},
		{"no cluster before the suffix", open, hello + "\x05\x01\x00\x03\x0aab.culvert\x00\x50", granted + reply(NotAllowed)},
		{"a user name that can be no cluster", open, "\x05\x01\x02\x01\x02A/\x01p\x05\x01\x00\x03\x02db\x00\x50", "\x05\x02\x01\x00" + reply(NotAllowed)},
		{"no method", fixed, "\x05\x01\x01", "\x05\xff"},
		{"no methods", fixed, "\x05\x00", "\x05\xff"},
		{"SOCKS4", fixed, "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", ""},
		{"another protocol", fixed, "\x16\x03\x01", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Who speaks something else may be reset: it has sent more than was read.
			got, err := exchange(t, c.server, c.text)
			if got != c.want || err != nil && (c.want != "" || !errors.Is(err, syscall.ECONNRESET)) {
				t.Errorf("got %x, %v, want %x", got, err, c.want)
			}
		})
	}
	t.Run("HTTP is told what this is", func(t *testing.T) {
		if got, err := exchange(t, fixed, "CONNECT db:80 HTTP/1.1\r\n\r\n"); err != nil || !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "socks5h") {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("an error of the dial is the reply that Explain gives", func(t *testing.T) {
		s := &Server{Cluster: "edge-1", Dial: func(context.Context, string, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }}
		s.Explain = func(err error) Reply {
			if errors.Is(err, syscall.ECONNREFUSED) {
				return ConnectionRefused
			}
			return GeneralFailure
		}
		address, _ := start(t, s)
		if got, err := exchange(t, address, hello+"\x05\x01\x00\x03\x02db\x00\x50"); err != nil || got != granted+reply(ConnectionRefused) {
			t.Errorf("%x, %v", got, err)
		}
	})
}

func TestSilence(t *testing.T) {
	address, _ := start(t, &Server{Cluster: "edge-1", HandshakeTimeout: 50 * time.Millisecond})
	for _, text := range []string{"", "\x05", hello, hello + "\x05\x01\x00\x03\x10db"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %v", text, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// duplex reads from one side and keeps what is written.
type duplex struct {
	io.Reader
	io.Writer
}

func FuzzHandshake(f *testing.F) {
	for _, text := range []string{
		hello + "\x05\x01\x00\x03\x02db\x00\x50", hello + "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", "GET / HTTP/1.1\r\n", "\x04",
		"\x05\x02\x00\x02\x01\x02e1\x01p\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
		hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", hello + "\x05\x01\x00\x03\x0fdb.edge.culvert\x00\x50",
	} {
		f.Add([]byte(text), "")
		f.Add([]byte(text), "edge-1")
	}
	f.Fuzz(func(t *testing.T, text []byte, cluster string) {
		in := bytes.NewReader(text)
		var out bytes.Buffer
		to, err := (&Server{Cluster: cluster}).handshake(duplex{in, &out})
		// 2+255 methods, 1+256+256 of a login, 4+256+2 of a request.
		if read := len(text) - in.Len(); read > 257+513+262 {
			t.Errorf("%d bytes were read", read)
		}
		if err != nil {
			return
		}
		if to.Cluster == "" || cluster != "" && to.Cluster != cluster {
			t.Errorf("cluster %q where it is to be %q", to.Cluster, cluster)
		}
		if host, port, err := net.SplitHostPort(to.Address); err != nil || host == "" || port == "0" || strings.ToLower(host) != host {
			t.Errorf("address %q", to.Address)
		}
	})
}
