package acceptor_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// clientHub is a hub of clients, who are whom they say.
type clientHub struct {
	*acceptor.Clients

	address string
	config  func() *tls.Config
}

func newClientHub(t *testing.T, cfg acceptor.ClientsConfig) *clientHub {
	t.Helper()
	pool, cert := authority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Admit = func(_ context.Context, c *acceptor.Client) (string, error) { return c.Authorization[0], nil }
	cfg.Handle = func(context.Context, *acceptor.Client, *mux.Incoming) {}
	cfg.Logger = slog.New(slog.DiscardHandler)
	h := &clientHub{acceptor.NewClients(cfg), ln.Addr().String(), func() *tls.Config {
		return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{tunnel.ClientProtocol}, MinVersion: tls.VersionTLS13}
	}}
	served := make(chan error, 1)
	go func() {
		served <- h.Serve(listener{ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{tunnel.ClientProtocol}, MinVersion: tls.VersionTLS13}})
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = h.Shutdown(ctx, wire.CodeDraining, "the test is over") // cuts what is left, on purpose
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return h
}

func (h *clientHub) connect(t *testing.T, user string) (*tunnel.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := tunnel.Connect(ctx, tunnel.DialerConfig{
		Address: h.address, Protocol: tunnel.ClientProtocol, TLS: h.config,
		Metadata: func(context.Context) ([]string, error) { return []string{"authorization", user}, nil },
		Mux:      mux.Config{Hop: wire.HopClient}, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		t.Cleanup(func() {
			conn.Close()
			<-conn.Done()
		})
	}
	return conn, err
}

func TestLinksOfOneUserAreBounded(t *testing.T) {
	h := newClientHub(t, acceptor.ClientsConfig{MaxLinks: 10, MaxUserLinks: 2})
	first, err := h.connect(t, "ada")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.connect(t, "ada"); err != nil {
		t.Fatal(err)
	}
	_, err = h.connect(t, "ada")
	var e *mux.Error
	if !errors.As(err, &e) || status.Code(e.Cause) != codes.ResourceExhausted || !strings.Contains(err.Error(), `"ada" has 2 links`) {
		t.Errorf("a third link: %v", err)
	}
	if _, err := h.connect(t, "bob"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	first.Close()
	eventually(t, "the hub sees the end of the first", func() bool { return h.Len() == 2 })
	if _, err := h.connect(t, "ada"); err != nil {
		t.Errorf("after the end of one: %v", err)
	}
}

func TestConnectionsWithoutACallEnd(t *testing.T) {
	h := newClientHub(t, acceptor.ClientsConfig{IdleTime: 50 * time.Millisecond})
	link, err := h.connect(t, "ada")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", h.address, h.config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	// It answers everything, as a client would that is there.
	frames := http2.NewFramer(conn, conn)
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for goaway := false; ; {
		f, err := frames.ReadFrame()
		if errors.Is(err, io.EOF) && goaway {
			break
		}
		if err != nil {
			t.Fatalf("goaway %v: %v", goaway, err)
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			goaway = true
		case *http2.PingFrame:
			if !f.IsAck() {
				err = frames.WritePing(true, f.Data)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = frames.WriteSettingsAck()
			}
		}
		if err != nil && !goaway {
			t.Fatal(err)
		}
	}
	if _, err := link.Link().Ping(t.Context()); err != nil {
		t.Errorf("a link without sessions is a call: %v", err)
	}
}

func TestLinksOfOneClusterAreBounded(t *testing.T) {
	h := newHub(t)
	h.stop(0)
	h.change = func(cfg *acceptor.ServerConfig) { cfg.MaxClusterLinks = 2 }
	h.start()
	h.dial(t, io.Discard)
	<-h.links
	second := h.dial(t, io.Discard)
	link := <-h.links
	var log lockedBuffer
	h.dial(t, &log)
	eventually(t, "the third agent's log says why", func() bool {
		return strings.Contains(log.String(), "the cluster test has 2 links")
	})
	eventually(t, "the dialler publishes the link", func() bool { return second.Link() != nil })
	if err := second.Shutdown(t.Context(), wire.CodeDraining, "the agent is stopping"); err != nil {
		t.Fatal(err)
	}
	<-link.Done()
	<-h.links // of who comes first now
}

func TestServeAfterShutdown(t *testing.T) {
	for name, s := range map[string]interface {
		Serve(l net.Listener) error
		Shutdown(ctx context.Context, code wire.Code, message string) error
	}{
		"agents":  acceptor.NewServer(acceptor.ServerConfig{Logger: slog.New(slog.DiscardHandler)}),
		"clients": acceptor.NewClients(acceptor.ClientsConfig{Logger: slog.New(slog.DiscardHandler)}),
	} {
		t.Run("a hub that is stopped while it starts has not failed: "+name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Shutdown(t.Context(), wire.CodeDraining, "the hub is stopping"); err != nil {
				t.Error(err)
			}
			if err := s.Serve(ln); err != nil {
				t.Error(err)
			}
		})
	}
}
