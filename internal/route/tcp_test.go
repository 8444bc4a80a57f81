package route_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestParseTCP(t *testing.T) {
	for path, want := range map[string]wire.Target{
		"/-/tcp/edge-1/VM1.lab.:5900": wire.Address("vm1.lab", 5900), "/-/tcp/edge-1/[FD00::1]:22": wire.Address("fd00::1", 22),
		"/-/tcp/edge-1/%5bfd00::1%5D%3A22": wire.Address("fd00::1", 22), "/-/tcp/edge-1/[::ffff:10.0.0.1]:22": wire.Address("10.0.0.1", 22),
	} {
		if cluster, got, err := route.ParseTCP(path); err != nil || cluster != "edge-1" || got != want {
			t.Errorf("ParseTCP(%q) = %q, %v, %v, want %v", path, cluster, got, err, want)
		}
	}
	for _, path := range []string{
		"", "/", "/-/tcp/", "/-/tcp/edge-1", "/-/tcp/edge-1/", "/-/tcp//vm:1", "/-/tcp/Edge/vm:1", "/-/tcp/-/vm:1", "/-/tcp/edge-1/vm", "/-/tcp/edge-1/vm:0",
		"/-/tcp/edge-1/vm:1/", "/-/tcp/edge-1/vm:1/..", "/-/tcp/edge-1/../vm:1", "/-/tcp/edge-1/v%6d:1", "/-/tcp/edge-1/127.1:1", "/-/tcp/edge-1/2130706433:1",
		"/-/tcp/edge-1/a@b:1", "/-/tcp/edge%2D1/vm:1", "/-/TCP/edge-1/vm:1", "/-/tcp/edge-1/[fe80::1%25eth0]:1",
	} {
		if cluster, got, err := route.ParseTCP(path); fault.As(err) == nil || fault.As(err).Code != wire.CodeInvalidTarget {
			t.Errorf("ParseTCP(%q) = %q, %v, %v, want invalid target", path, cluster, got, err)
		}
	}
}

func TestIsTCP(t *testing.T) {
	for uri, want := range map[string]bool{
		"/-/tcp/edge-1/vm:1": true, "https://hub/-/tcp/x": true, "/-/tcp": false, "/-/%74cp/edge-1/vm:1": false, "/edge-1/-/tcp/x": false, "*": false, "//-/tcp/x": false,
	} {
		if got := route.IsTCP(&http.Request{Method: http.MethodGet, RequestURI: uri}); got != want {
			t.Errorf("IsTCP(%q) = %v", uri, got)
		}
	}
}

func TestAuthority(t *testing.T) {
	got, err := route.Authority(&http.Request{Method: http.MethodConnect, RequestURI: "VM1.lab:5900", Host: "other:1"})
	if err != nil || got != wire.Address("vm1.lab", 5900) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, r := range []*http.Request{
		{Method: http.MethodGet, RequestURI: "vm1:5900"}, {Method: http.MethodConnect, RequestURI: "/vm1:5900"},
		{Method: http.MethodConnect, RequestURI: "vm1:5900", Header: http.Header{":protocol": {"websocket"}}},
		{Method: http.MethodConnect, RequestURI: "http://vm1:5900"}, {Method: http.MethodConnect, RequestURI: "", Host: "vm1:5900"},
	} {
		if got, err := route.Authority(r); fault.As(err) == nil {
			t.Errorf("Authority(%s %s) = %v, want an error", r.Method, r.RequestURI, got)
		}
	}
}

// FuzzParseTCP proves that what is accepted is canonical.
func FuzzParseTCP(f *testing.F) {
	for _, seed := range []string{"/-/tcp/edge-1/vm:5900", "/-/tcp/edge-1/%5B::1%5D%3A1", "/-/tcp/e/127.1:1", "/-/tcp/e/A.:2", "/-/tcp/e/%253A:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		cluster, target, err := route.ParseTCP(in)
		if err != nil {
			return
		}
		if err := route.CheckCluster(cluster); err != nil {
			t.Fatalf("ParseTCP(%q) gives cluster %q: %v", in, cluster, err)
		}
		if err := route.CheckTarget(target); err != nil {
			t.Fatalf("ParseTCP(%q) gives %v: %v", in, target, err)
		}
		canonical := route.TCPPrefix + cluster + "/" + strings.TrimPrefix(target.String(), "tcp ")
		if c, again, err := route.ParseTCP(canonical); err != nil || c != cluster || again != target {
			t.Fatalf("ParseTCP(%q) = %v, and %q gives %v, %v", in, target, canonical, again, err)
		}
	})
}
