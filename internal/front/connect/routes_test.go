package connect_test

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/front/connect"
)

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	ok(t, os.WriteFile(path, text, 0o600))
}

func TestRoutes(t *testing.T) {
	routes, err := connect.NewRoutes([]connect.Rule{
		{Hosts: []string{"*"}, CIDRs: []string{"0.0.0.0/0"}, Cluster: "rest"},
		{Hosts: []string{"*.example.com", "VM.other."}, CIDRs: []string{"10.0.0.0/8", "fd00::/8"}, Cluster: "wide"},
		{Hosts: []string{"*.a.example.com", "exact.a.example.com.x"}, CIDRs: []string{"10.1.0.0/16"}, Cluster: "narrow"},
		{Hosts: []string{"one.a.example.com"}, CIDRs: []string{"10.1.2.3/32"}, Cluster: "exact"},
	})
	ok(t, err)
	for host, want := range map[string]string{
		"one.a.example.com": "exact", "two.a.example.com": "narrow", "x.two.a.example.com": "narrow", "a.example.com": "wide",
		"b.example.com": "wide", "example.com": "rest", "vm.other": "wide", "xa.example.com": "wide", "localhost": "rest",
		"10.1.2.3": "exact", "10.1.2.4": "narrow", "10.2.0.1": "wide", "192.0.2.1": "rest", "fd00::1": "wide", "2001:db8::1": "",
	} {
		if got, ok := routes.Lookup(host); got != want || ok != (want != "") {
			t.Errorf("Lookup(%q) = %q, %v, want %q", host, got, ok, want)
		}
	}
	if _, ok := (*connect.Routes)(nil).Lookup("x"); ok {
		t.Error("no routes have a route")
	}
}

func TestRouteProblems(t *testing.T) {
	_, err := connect.NewRoutes([]connect.Rule{
		{Hosts: []string{"vm.example.com", "*.example.com", "10.0.0.1", "a b", "*.*.x", "x.*"}, Cluster: "edge-1"},
		{Hosts: []string{"VM.example.com.", "*.EXAMPLE.com"}, CIDRs: []string{"10.1.2.3/16", "::ffff:10.0.0.0/104", "10.0.0.0/40"}, Cluster: "edge-2"},
		{CIDRs: []string{"10.0.0.0/8", "10.0.0.0/8"}, Cluster: "Edge"},
		{Cluster: "edge-3"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"[0].hosts[2]: \"10.0.0.1\" is an address", "[0].hosts[3]: ", "[0].hosts[4]: ", "[0].hosts[5]: ",
		"[1].hosts[0]: vm.example.com is in [0].hosts[0] already", "[1].hosts[1]: *.example.com is in [0].hosts[1] already",
		"[1].cidrs[0]: ", "write 10.1.0.0/16", "[1].cidrs[1]: ", "[1].cidrs[2]: ",
		"[2].cluster: ", "[2].cidrs[1]: 10.0.0.0/8 is in [2].cidrs[0] already", "[3]: leads nowhere",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestRestrict(t *testing.T) {
	t.Run("a client of no listed network is cut before it is read", func(t *testing.T) {
		inner := listen(t)
		ln := connect.Restrict(inner, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.2/32")}, slog.New(slog.DiscardHandler))
		defer ln.Close()
		refused, err := net.Dial("tcp", inner.Addr().String())
		ok(t, err)
		defer refused.Close()
		allowed, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", inner.Addr().String())
		ok(t, err)
		defer allowed.Close()
		got, err := ln.Accept()
		ok(t, err)
		defer got.Close()
		if got.RemoteAddr().String() != allowed.LocalAddr().String() {
			t.Errorf("accepted %v", got.RemoteAddr())
		}
		if _, err := refused.Read(make([]byte, 1)); err == nil {
			t.Error("the other one was answered")
		}
	})
}
