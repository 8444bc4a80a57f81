package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
	"github.com/culvertdev/culvert/server"
)

// program makes the link of a client, with what its call says; change may be nil.
func (h *hub) program(change func(*tls.Config), metadata ...string) (*tunnel.Conn, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	conn, err := tunnel.Connect(ctx, tunnel.DialerConfig{
		Address: h.address(), Protocol: tunnel.ClientProtocol,
		TLS: func() *tls.Config {
			cfg := &tls.Config{RootCAs: h.roots(), MinVersion: tls.VersionTLS13}
			if change != nil {
				change(cfg)
			}
			return cfg
		},
		Metadata: func(context.Context) ([]string, error) { return metadata, nil },
		Mux:      mux.Config{Hop: wire.HopClient}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() {
		conn.Close()
		<-conn.Done()
	})
	return conn, nil
}

func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[*mux.Error](err); ok && e.Cause != nil {
		err = e.Cause
	}
	return grpcstatus.Code(err)
}

// TestLinksAreHeldToLimits holds that nobody tries tokens faster on a link's call than in
// requests, and that the trying is recorded.
func TestLinksAreHeldToLimits(t *testing.T) {
	const burst = 3
	cfg := config(t)
	trail := filepath.Join(t.TempDir(), "audit.log")
	cfg.Audit = &server.Audit{File: &server.AuditFile{Path: trail}}
	cfg.Limits = &server.Limits{Remote: &server.Bounds{RequestsPerSecond: 1e-6, Burst: burst}}
	h := start(t, cfg)
	for range burst {
		if _, err := h.program(nil, "authorization", "Bearer guess"); codeOf(err) != codes.Unauthenticated {
			t.Fatalf("a wrong token: %v", err)
		}
	}
	_, err := h.program(nil, "authorization", "Bearer tok-bob")
	if codeOf(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "requests per second of this remote") {
		t.Errorf("one more, with a right one: %v", err)
	}
	if code, body := h.get("GET", "/-/v1/self", "tok-bob"); code != 429 {
		t.Errorf("a request from the same network: %d %s", code, body)
	}
	h.stop()
	lines, err := os.ReadFile(trail)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]int{"unauthenticated": burst, "too-many-requests": 2} {
		if got := strings.Count(string(lines), `"code":"`+code+`"`); got != want {
			t.Errorf("%d lines of %s, want %d:\n%s", got, code, want, lines)
		}
	}
	if strings.Contains(string(lines), "guess") {
		t.Errorf("a token is in the audit log:\n%s", lines)
	}
}

// TestNamesOfBytesTakeNoRequests holds that a name whose connections are of bytes leads no
// request there, by whatever way it comes to the hub.
func TestNamesOfBytesTakeNoRequests(t *testing.T) {
	cfg := config(t)
	cfg.Hosts = &server.Hosts{Names: []server.HostName{
		{Name: "db.example.com", Cluster: "edge-1", Address: "db.internal:5432"},
		{Name: "raw.example.com", Cluster: "edge-1", Address: "db.internal:5432", Mode: server.ModePassThrough},
		{Name: "api.example.com", Cluster: "edge-1", Mode: server.ModePassThrough},
	}}
	h := start(t, cfg)
	ask := func(conn net.Conn, host string) {
		t.Helper()
		defer func() { _ = conn.Close() }() // the answer is what counts
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: "+host+"\r\nAuthorization: Bearer tok-ada\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // the connection ends, too
		if res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s", host, res.Status)
		}
	}
	for _, host := range []string{"db.example.com", "DB.example.com.:443", "raw.example.com", "api.example.com"} {
		bare, err := tls.Dial("tcp", h.server.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		ask(bare, host)
		link, err := h.program(nil, "authorization", "Bearer tok-ada")
		if err != nil {
			t.Fatal(err)
		}
		session, err := link.Link().Open(t.Context(), mux.Request{Target: wire.Hub()})
		if err != nil {
			t.Fatal(err)
		}
		ask(session, host)
		named, err := h.program(func(cfg *tls.Config) { cfg.ServerName, cfg.InsecureSkipVerify = "db.example.com", true }, "authorization", "Bearer tok-ada")
		if err != nil {
			t.Fatal(err)
		}
		if session, err = named.Link().Open(t.Context(), mux.Request{Target: wire.Hub()}); err != nil {
			t.Fatal(err)
		}
		ask(session, host)
	}
}

// TestLinksTakeNothingOfSessions holds that a link leaves its user all the sessions that
// the limits allow.
func TestLinksTakeNothingOfSessions(t *testing.T) {
	cfg := config(t)
	cfg.Limits = &server.Limits{Remote: &server.Bounds{Sessions: 1, Concurrent: 1}, User: &server.Bounds{Sessions: 1, Concurrent: 1}}
	h := start(t, cfg)
	for range 2 {
		conn, err := h.program(nil, "authorization", "Bearer tok-bob")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = conn.Link().Open(ctx, mux.Request{Cluster: "nowhere", Target: wire.Address("127.0.0.1", 80)})
		cancel()
		if e, ok := errors.AsType[*mux.Error](err); !ok || e.Code != wire.CodePermissionDenied {
			t.Errorf("%v, want the answer of the policy", err)
		}
	}
}
