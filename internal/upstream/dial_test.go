package upstream_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestCheck(t *testing.T) {
	u := start(t, upstream.Config{
		Services: []upstream.ServiceRule{
			{Namespace: "default", Name: "web", Port: "8443"}, {Namespace: "default", Name: "api", Port: "https"},
			{Namespace: "open", Name: "*"}, {Namespace: "*", Name: "metrics", Port: "*"},
		},
		Addresses: []upstream.AddressRule{{Host: "db.prod.svc", Port: "5432"}, {Host: "10.0.0.1", Port: "*"}},
	})
	for _, target := range []wire.Target{
		wire.Service("default", "web", "8443", "https"), wire.Service("default", "api", "https", ""), wire.Service("open", "any", "1", "http"),
		wire.Service("any", "metrics", "", ""), wire.Service("default", "web", "https", ""), wire.Service("default", "web", "", ""),
		wire.Address("db.prod.svc", 5432), wire.Address("10.0.0.1", 1),
	} {
		if err := u.Check(target); err != nil {
			t.Errorf("O21: Check(%v): %v", target, err)
		}
	}
	for _, target := range []wire.Target{
		wire.KubernetesAPI(), wire.Service("default", "web", "443", ""), wire.Service("default", "api", "443", ""),
		wire.Service("default", "api", "", ""), wire.Service("other", "web", "8443", ""), wire.Address("db.prod.svc", 5433), wire.Address("10.0.0.2", 1),
	} {
		wantCode(t, u.Check(target), wire.HopAgent, wire.CodePermissionDenied)
	}
	for _, target := range []wire.Target{{}, wire.Service("Default", "web", "8443", ""), wire.Address("DB.prod.svc", 5432), wire.Service("default", "web", "08443", "")} {
		wantCode(t, u.Check(target), wire.HopAgent, wire.CodeInvalidTarget)
	}
}

func TestRules(t *testing.T) {
	for in, want := range map[string]upstream.ServiceRule{
		"default/web": {Namespace: "default", Name: "web"}, "*/*:*": {Namespace: "*", Name: "*", Port: "*"},
		"a/b:8443": {Namespace: "a", Name: "b", Port: "8443"}, "a/b:https": {Namespace: "a", Name: "b", Port: "https"},
	} {
		if got, err := upstream.ParseServiceRule(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "web", "/web", "a/", "a/b:", "A/b", "a/b:0", "a/b:0443", "a/b:c:d", "a/b/c", "a*/b"} {
		if got, err := upstream.ParseServiceRule(in); err == nil {
			t.Errorf("%q: got %+v", in, got)
		}
	}
	for in, want := range map[string]upstream.AddressRule{
		"DB.prod.svc:5432": {Host: "db.prod.svc", Port: "5432"}, "10.0.0.1:*": {Host: "10.0.0.1", Port: "*"}, "[::1]:*": {Host: "::1", Port: "*"},
	} {
		if got, err := upstream.ParseAddressRule(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "db", "*:1", "db:x", "db:0", ":*", "127.1:*"} {
		if got, err := upstream.ParseAddressRule(in); err == nil {
			t.Errorf("%q: got %+v", in, got)
		}
	}
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	dns := dnsServer(t, false)
	u := start(t, upstream.Config{Addresses: []upstream.AddressRule{{Host: "127.0.0.1", Port: "*"}, {Host: "missing.example", Port: "*"}}, DNSServer: dns})
	t.Run("an allowed address is connected", func(t *testing.T) {
		conn, err := u.Dial(t.Context(), wire.Address("127.0.0.1", port))
		ok(t, err)
		conn.Close()
	})
	t.Run("an address that is not allowed is not", func(t *testing.T) {
		_, err := u.Dial(t.Context(), wire.Address("127.0.0.2", port))
		wantCode(t, err, wire.HopAgent, wire.CodePermissionDenied)
	})
	t.Run("a name that does not resolve", func(t *testing.T) {
		_, err := u.Dial(t.Context(), wire.Address("missing.example", 1))
		wantCode(t, err, wire.HopAgent, wire.CodeNotFound)
	})
	t.Run("nothing listens", func(t *testing.T) {
		l.Close()
		_, err := u.Dial(t.Context(), wire.Address("127.0.0.1", port))
		wantCode(t, err, wire.HopTarget, wire.CodeConnectionRefused)
	})
	t.Run("the caller left", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := u.Dial(ctx, wire.Address("127.0.0.1", port))
		wantCode(t, err, wire.HopClient, wire.CodeCanceled)
	})
}

func TestDialTimeout(t *testing.T) {
	t.Run("D10: a connection attempt takes 10 s by default", func(t *testing.T) {
		if upstream.DefaultDialTimeout != 10*time.Second {
			t.Errorf("got %v", upstream.DefaultDialTimeout)
		}
	})
	dns := dnsServer(t, true)
	u := start(t, upstream.Config{
		DNSServer: dns, DialTimeout: 50 * time.Millisecond, Services: []upstream.ServiceRule{{Namespace: "*", Name: "*"}},
		Addresses: []upstream.AddressRule{{Host: "silent.example", Port: "*"}},
	})
	t.Run("D10: the time covers the name, and its end is a typed code", func(t *testing.T) {
		_, err := u.Dial(t.Context(), wire.Address("silent.example", 1))
		if f := fault.As(err); f == nil || f.Code != wire.CodeDeadlineExceeded {
			t.Errorf("got %v", err)
		}
	})
	t.Run("D10: a request whose target cannot be connected in time is 504", func(t *testing.T) {
		for _, port := range []string{"1", "https", ""} {
			res, body := ask(t, u, wire.Service("a", "b", port, "http"), "/")
			if res.StatusCode != 504 || res.Header.Get("X-Culvert-Error") != "deadline-exceeded" {
				t.Errorf("port %q: got %s %s", port, res.Status, body)
			}
		}
	})
}

// dnsServer answers nothing when silent, else: no such name, except 127.0.0.1
// for names of services and SRV records that give port 9 for every port.
func dnsServer(t *testing.T, silent bool) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ok(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if silent {
				continue
			}
			reply, err := dnsAnswer(buf[:n])
			if err == nil {
				_, err = conn.WriteTo(reply, from)
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

func dnsAnswer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5}
	switch {
	case !strings.HasSuffix(q.Name.String(), ".svc.cluster.local."):
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeSRV:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.SRVResource{Port: 9, Target: q.Name}}}
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	return m.Pack()
}

func TestResolvedPort(t *testing.T) {
	u := start(t, upstream.Config{DNSServer: dnsServer(t, false), Services: []upstream.ServiceRule{{Namespace: "a", Name: "b", Port: "8443"}}})
	t.Run("O21: a rule by number holds against the number that a name leads to", func(t *testing.T) {
		for _, port := range []string{"https", ""} {
			target := wire.Service("a", "b", port, "https")
			ok(t, u.Check(target))
			if res, body := ask(t, u, target, "/"); res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") != "permission-denied" {
				t.Errorf("port %q: got %s %s", port, res.Status, body)
			}
		}
	})
}
