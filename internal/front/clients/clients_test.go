package clients_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/culvertdev/culvert/client/culverttest"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect makes a link with what a client says of itself.
func connect(t *testing.T, hub *culverttest.Hub, metadata ...string) (*tunnel.Conn, error) {
	t.Helper()
	ca, err := os.ReadFile(hub.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no CA")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := tunnel.Connect(ctx, tunnel.DialerConfig{
		Address: strings.TrimPrefix(hub.URL, "https://"), Protocol: tunnel.ClientProtocol,
		TLS:      func() *tls.Config { return &tls.Config{RootCAs: pool} },
		Metadata: func(context.Context) ([]string, error) { return metadata, nil },
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

func statusOf(err error) codes.Code {
	if e, ok := errors.AsType[*mux.Error](err); ok && e.Cause != nil {
		err = e.Cause
	}
	return status.Code(err)
}

func TestWhoIsRefused(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	for name, metadata := range map[string][]string{
		"no credential":          nil,
		"an empty one":           {"authorization", ""},
		"a wrong token":          {"authorization", "Bearer wrong"},
		"another scheme":         {"authorization", "Basic " + hub.Token},
		"no scheme":              {"authorization", hub.Token},
		"two tokens":             {"authorization", "Bearer " + hub.Token, "authorization", "Bearer " + hub.Token},
		"the token elsewhere":    {"culvert-authorization", "Bearer " + hub.Token},
		"the token as a cookie":  {"cookie", "Authorization=Bearer " + hub.Token},
		"a name in place of one": {"x-remote-user", "tester"},
		"somebody else's name":   {"impersonate-user", "admin"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, hub, metadata...)
			if statusOf(err) != codes.Unauthenticated {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), hub.Token) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	conn, err := connect(t, hub, "authorization", "Bearer "+hub.Token)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		req  mux.Request
		code wire.Code
	}{
		"the Kubernetes API, whose requests the hub has to read": {mux.Request{Cluster: "test", Target: wire.KubernetesAPI()}, wire.CodeInvalidTarget},
		"a service":           {mux.Request{Cluster: "test", Target: wire.Service("default", "web", "80", "http")}, wire.CodeInvalidTarget},
		"nothing":             {mux.Request{Cluster: "test"}, wire.CodeInvalidTarget},
		"no cluster":          {mux.Request{Target: wire.Address("127.0.0.1", 80)}, wire.CodeInvalidTarget},
		"a path as a cluster": {mux.Request{Cluster: "../test", Target: wire.Address("127.0.0.1", 80)}, wire.CodeInvalidTarget},
		"port 0":              {mux.Request{Cluster: "test", Target: wire.Address("127.0.0.1", 0)}, wire.CodeInvalidTarget},
		"a host with a NUL":   {mux.Request{Cluster: "test", Target: wire.Address("a\x00b", 80)}, wire.CodeInvalidTarget},
		"a cluster's TLS, which its agent does not carry": {mux.Request{Cluster: "test", Target: wire.KubernetesTLS()}, wire.CodePermissionDenied},
		"another cluster": {mux.Request{Cluster: "other", Target: wire.Address("127.0.0.1", 80)}, wire.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := conn.Link().Open(ctx, tt.req)
			if e, ok := errors.AsType[*mux.Error](err); !ok || e.Code != tt.code {
				t.Errorf("got %v, want %v", err, tt.code)
			}
		})
	}
}

// TestHubTarget holds that HTTP inside of a link is that of the port: each request has a
// credential of its own.
func TestHubTarget(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	conn, err := connect(t, hub, "authorization", "Bearer "+hub.Token)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		token  string
		status int
	}{"without": {"", 401}, "with a wrong one": {"wrong", 401}, "with one": {hub.Token, 200}} {
		t.Run(name, func(t *testing.T) {
			s, err := conn.Link().Open(t.Context(), mux.Request{Target: wire.Hub()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			fmt.Fprintf(s, "GET /test/version HTTP/1.1\r\nHost: localhost\r\n")
			if tt.token != "" {
				fmt.Fprintf(s, "Authorization: Bearer %s\r\n", tt.token)
			}
			fmt.Fprint(s, "\r\n")
			res, err := http.ReadResponse(bufio.NewReader(s), nil)
			if err != nil || res.StatusCode != tt.status {
				t.Fatalf("got %v, %v, want %d", res, err, tt.status)
			}
			res.Body.Close()
		})
	}
}

// TestTokenTakenBack holds that a link opens nothing more once its token is not good any
// more, and that what is open goes on.
func TestTokenTakenBack(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	conn, err := connect(t, hub, "authorization", "Bearer "+hub.Token)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	to := mux.Request{Cluster: "test", Target: wire.Address("127.0.0.1", port)}
	open, err := conn.Link().Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	target, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := os.WriteFile(filepath.Join(filepath.Dir(hub.CAFile), "tokens.csv"), []byte(rand.Text()+",other,other,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		s, err := conn.Link().Open(t.Context(), to)
		if e, ok := errors.AsType[*mux.Error](err); ok && e.Code == wire.CodeUnauthenticated && e.Hop == wire.HopHub {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if time.Now().After(end) {
			t.Fatal("the token still opens sessions")
		}
	}
	if _, err := open.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(target, got); err != nil || string(got) != "still" {
		t.Errorf("%q, %v", got, err)
	}
}
