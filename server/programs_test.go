package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
