package acceptor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/telemetry"
)

// troubled is a service whose handlers panic.
type troubled struct {
	culvertv1.UnimplementedTunnelServiceServer
	culvertv1.UnimplementedEnrolmentServiceServer
}

func (troubled) Connect(culvertv1.TunnelService_ConnectServer) error { panic("connect with s3cret") }

func (troubled) Renew(context.Context, *culvertv1.RenewRequest) (*culvertv1.RenewResponse, error) {
	panic("renew")
}

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// called starts a server behind the interceptors and returns a connection to it,
// its log, and what scrapes its metrics.
func called(t *testing.T, authenticate func(context.Context) (context.Context, error)) (*grpc.ClientConn, *lines, func() string) {
	t.Helper()
	log := &lines{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tel, err := telemetry.New(telemetry.Config{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	port, err := tel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(interceptors(logger, tel.Metrics(), authenticate)...)
	culvertv1.RegisterTunnelServiceServer(server, troubled{})
	culvertv1.RegisterEnrolmentServiceServer(server, troubled{})
	var running sync.WaitGroup
	for _, serve := range []func() error{port.Serve, func() error { return server.Serve(l) }} {
		running.Go(func() {
			if err := serve(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		server.Stop()
		port.Close()
		running.Wait()
		tel.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return cc, log, func() string {
		t.Helper()
		res, err := http.Get("http://" + port.Addr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
}

func connect(t *testing.T, cc *grpc.ClientConn) error {
	t.Helper()
	stream, err := culvertv1.NewTunnelServiceClient(cc).Connect(t.Context())
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestInterceptors(t *testing.T) {
	member := func(ctx context.Context) (context.Context, error) {
		return context.WithValue(ctx, identityKey{}, identity{cluster: "edge"}), nil
	}
	t.Run("K10: a panic in a handler is a status, a line with the stack and a metric, and the server goes on", func(t *testing.T) {
		cc, log, scrape := called(t, member)
		for range 2 {
			if err := connect(t, cc); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("connect: %v", err)
			}
		}
		if _, err := culvertv1.NewEnrolmentServiceClient(cc).Renew(t.Context(), &culvertv1.RenewRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("renew: %v", err)
		}
		body := scrape()
		for _, want := range []string{
			`culvert_panics_total{room="tunnel"} 3`,
			`culvert_tunnel_calls_total{code="Internal",method="Connect"} 2`, `culvert_tunnel_calls_total{code="Internal",method="Renew"} 1`,
		} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
		for _, want := range []string{"troubled.Connect", "finished call", "grpc.method=Connect", "grpc.code=Internal"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no %q in\n%s", want, log)
			}
		}
	})
	t.Run("K10: a caller that is not authenticated gets no further, and is counted", func(t *testing.T) {
		cc, _, scrape := called(t, func(context.Context) (context.Context, error) {
			return nil, status.Error(codes.Unauthenticated, "no certificate")
		})
		if err := connect(t, cc); status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v", err)
		}
		if body := scrape(); !strings.Contains(body, `culvert_tunnel_calls_total{code="Unauthenticated",method="Connect"} 1`) || strings.Contains(body, "culvert_panics_total{") {
			t.Errorf("got\n%s", body)
		}
	})
	t.Run("K10: a cluster that calls too often is refused, another one is not", func(t *testing.T) {
		var name atomic.Value
		name.Store("noisy")
		cc, _, scrape := called(t, func(ctx context.Context) (context.Context, error) {
			return context.WithValue(ctx, identityKey{}, identity{cluster: fmt.Sprint(name.Load())}), nil
		})
		refused := 0
		for range 2 * callBurst {
			if err := connect(t, cc); status.Code(err) == codes.ResourceExhausted {
				refused++
			}
		}
		// Some more than the burst pass, by the time that the calls took.
		if refused < callBurst/4 || refused > callBurst {
			t.Errorf("%d of %d were refused", refused, 2*callBurst)
		}
		name.Store("quiet")
		if err := connect(t, cc); status.Code(err) != codes.Internal {
			t.Errorf("the other cluster got %v", err)
		}
		if body := scrape(); !strings.Contains(body, fmt.Sprintf(`culvert_tunnel_calls_total{code="ResourceExhausted",method="Connect"} %d`, refused)) {
			t.Errorf("got\n%s", body)
		}
	})
}

func TestCallLimit(t *testing.T) {
	now := time.Now()
	l := newCallLimit(10, 2)
	l.most = 2
	a, b := l.account("a", now), l.account("b", now)
	if a == b || a != l.account("a", now) {
		t.Error("accounts are not kept apart")
	}
	a.AllowN(now, 2)
	b.AllowN(now, 2)
	if c := l.account("c", now); c != l.others || len(l.callers) != 2 {
		t.Error("K10: the table grew beyond its bound")
	}
	if c := l.account("c", now.Add(time.Second)); c == l.others {
		t.Error("no room was made, though nobody else called any more")
	}
	for _, c := range []struct {
		ctx  context.Context
		want string
	}{
		{t.Context(), "nobody"},
		{peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}}), "address 192.0.2.1"},
		{context.WithValue(t.Context(), identityKey{}, identity{cluster: "edge"}), "cluster edge"},
	} {
		if got := caller(c.ctx); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
