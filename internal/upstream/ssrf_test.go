package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// allowEverything is the widest policy that can be written without a list of
// special networks.
const allowEverything = `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: by-name
  effect: allow
  tcp: [{hosts: ["*"], ports: ["*"]}]
- name: by-network
  effect: allow
  tcp: [{cidrs: ["0.0.0.0/0", "::/0"], ports: ["*"]}]
- name: services
  effect: allow
  services: [{namespace: "*", name: "*"}]
`

func parsePolicy(t *testing.T, text string) policy.Authorizer {
	t.Helper()
	p, err := policy.Parse([]byte(text), policy.Options{Agent: true})
	ok(t, err)
	return p
}

// trap listens on loopback, in both families on one port, and counts who comes.
type trap struct {
	port uint16
	came atomic.Int32
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	tr := &trap{}
	for _, l := range listenAlike(t) {
		tr.port = uint16(l.Addr().(*net.TCPAddr).Port)
		done := make(chan struct{})
		go tr.count(l, done)
		t.Cleanup(func() {
			l.Close()
			<-done
		})
	}
	return tr
}

// listenAlike listens on one port of several addresses of loopback. Somebody else
// may have the port on one of them, and then it tries another.
func listenAlike(t *testing.T) []net.Listener {
	t.Helper()
	for range 20 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		ok(t, err)
		all := []net.Listener{first}
		_, port, err := net.SplitHostPort(first.Addr().String())
		ok(t, err)
		for _, host := range []string{"127.0.0.2", "::1"} {
			l, listenErr := net.Listen("tcp", net.JoinHostPort(host, port))
			switch {
			case listenErr == nil:
				all = append(all, l)
			case errors.Is(listenErr, syscall.EADDRINUSE):
				err = listenErr
			case host == "127.0.0.2": // a machine without IPv6 has no ::1
				t.Fatal(listenErr)
			}
		}
		if err == nil {
			return all
		}
		for _, l := range all {
			l.Close()
		}
	}
	t.Fatal("no port is free on all addresses")
	return nil
}

// count ends when the listener is closed.
func (tr *trap) count(l net.Listener, done chan<- struct{}) {
	defer close(done)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		tr.came.Add(1)
		conn.Close()
	}
}

func wantRefused(t *testing.T, u *upstream.Upstream, target wire.Target) {
	t.Helper()
	conn, err := u.Dial(t.Context(), target)
	if err == nil {
		conn.Close()
	}
	f := fault.As(err)
	if f == nil || f.Hop != wire.HopAgent || f.Code != wire.CodePermissionDenied && f.Code != wire.CodeInvalidTarget {
		t.Fatalf("%q: got %v, want a refusal of the agent", target.Host, err)
	}
}

func TestForbiddenAddresses(t *testing.T) {
	trap, names := newTrap(t), newNameServer(t)
	port := strconv.Itoa(int(trap.port))
	u := start(t, upstream.Config{Policy: parsePolicy(t, allowEverything), DNSServer: names.addr()})
	for _, text := range forbidden {
		address := netip.MustParseAddr(text)
		all := spellings(address)
		for _, s := range all {
			// What a resolver has to have an opinion on is asked of this one.
			if host := strings.ToLower(strings.TrimSuffix(s, ".")); !strings.ContainsAny(host, "[%") && len(host) < 200 {
				names.set(host, []netip.Addr{address})
			}
		}
		t.Run("N8: no spelling of "+text+" in a URL or as host:port is dialled", func(t *testing.T) {
			if len(all) < 10 {
				t.Fatalf("%d spellings", len(all))
			}
			for _, s := range all {
				for _, portText := range []string{port, "0" + port} {
					// The hub's own reading, of a URL and of host:port.
					readings := []string{s + ":" + portText}
					if parsed, err := url.Parse("http://" + s + ":" + portText + "/latest"); err == nil {
						readings = append(readings, parsed.Host, net.JoinHostPort(parsed.Hostname(), parsed.Port()))
					}
					for _, reading := range readings {
						if target, err := route.ParseAddress(reading); err == nil {
							wantRefused(t, u, target)
						}
					}
				}
				// A hub that reads nothing and passes on what it is given.
				for _, host := range []string{s, strings.Trim(s, "[]"), strings.ToUpper(s), strings.ReplaceAll(strings.Trim(s, "[]"), "%25", "%")} {
					wantRefused(t, u, wire.Address(host, trap.port))
				}
			}
		})
		t.Run("N8: no spelling of "+text+" is a service", func(t *testing.T) {
			for _, s := range all {
				for _, scheme := range []string{"http:", "https:", ""} {
					for _, p := range []string{":" + port, ":0443", ""} {
						to, err := route.Parse("/edge/api/v1/namespaces/default/services/" + scheme + url.PathEscape(s) + p + "/proxy-service/latest")
						if err != nil {
							continue
						}
						if res, body := ask(t, u, to.Target, "/latest"); res.Header.Get("X-Culvert-Error") == "" {
							t.Fatalf("%q: got %s %s", s, res.Status, body)
						}
					}
				}
			}
		})
		t.Run("N8: no name that leads to "+text+" is dialled", func(t *testing.T) {
			for _, s := range carried(address) {
				names.set("direct.example", []netip.Addr{s})
				names.set("hidden.example", addresses("10.255.0.1"), []netip.Addr{s})
				names.set("mixed.example", []netip.Addr{netip.MustParseAddr("10.255.0.1"), s})
				names.set("svc.ns.svc.cluster.local", []netip.Addr{s})
				names.alias("alias.example", "direct.example")
				names.alias("external.ns.svc.cluster.local", "direct.example")
				for _, host := range []string{"direct.example", "mixed.example", "alias.example"} {
					wantRefused(t, u, wire.Address(host, trap.port))
				}
				for _, service := range []string{"svc", "external"} {
					res, body := ask(t, u, wire.Service("ns", service, port, "http"), "/latest")
					if res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") != "permission-denied" {
						t.Fatalf("%v by service %s: got %s %s", s, service, res.Status, body)
					}
				}
			}
		})
	}
	if n := trap.came.Load(); n != 0 {
		t.Errorf("N8: %d connections were made", n)
	}
}

func TestLocalhost(t *testing.T) {
	trap, names := newTrap(t), newNameServer(t)
	u := start(t, upstream.Config{Policy: parsePolicy(t, allowEverything), DNSServer: names.addr()})
	t.Run("N8: no spelling of localhost is dialled", func(t *testing.T) {
		for _, host := range []string{"localhost", "LOCALHOST", "localhost.", "LocalHost.", "localhost.localdomain", "a.localhost", "ip6-localhost", "ip6-loopback", "loopback.example", "127-0-0-1.example"} {
			names.set(strings.TrimSuffix(strings.ToLower(host), "."), addresses("127.0.0.1", "::1"))
			for _, reading := range []string{host, strings.TrimSuffix(strings.ToLower(host), ".")} {
				wantRefused(t, u, wire.Address(reading, trap.port))
			}
			if target, err := route.ParseAddress(host + ":" + strconv.Itoa(int(trap.port))); err == nil {
				wantRefused(t, u, target)
			}
		}
	})
	if n := trap.came.Load(); n != 0 {
		t.Errorf("N8: %d connections were made", n)
	}
}

func TestListedAddresses(t *testing.T) {
	trap, names := newTrap(t), newNameServer(t)
	names.set("two.example", addresses("127.0.0.2"))
	names.set("one.example", addresses("127.0.0.1"))
	names.set("both.example", addresses("127.0.0.2", "127.0.0.1"))
	names.set("mapped.example", addresses("::ffff:127.0.0.2"))
	listed := `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: listed, effect: allow, tcp: [{cidrs: ["127.0.0.2/32"]}]}
`
	byPolicy := start(t, upstream.Config{Policy: parsePolicy(t, listed), DNSServer: names.addr()})
	byFlag := start(t, upstream.Config{Addresses: []upstream.AddressRule{{Host: "127.0.0.2", Port: "*"}, {Host: "localhost", Port: "*"}, {Host: "one.example", Port: "*"}}, DNSServer: names.addr()})
	wantDialled := func(t *testing.T, u *upstream.Upstream, hosts ...string) {
		t.Helper()
		for _, host := range hosts {
			conn, err := u.Dial(t.Context(), wire.Address(host, trap.port))
			if err != nil {
				t.Errorf("%s: %v", host, err)
				continue
			}
			if ip := conn.RemoteAddr().(*net.TCPAddr).IP.String(); host != "localhost" && ip != "127.0.0.2" {
				t.Errorf("%s led to %s", host, ip)
			}
			conn.Close()
		}
	}
	t.Run("N8: an owner who lists a special network reaches it, by address and by name", func(t *testing.T) {
		wantDialled(t, byPolicy, "127.0.0.2", "two.example", "mapped.example")
	})
	t.Run("N8: its neighbours stay forbidden, also beside an allowed one", func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", "one.example", "both.example", "localhost", "::1"} {
			wantRefused(t, byPolicy, wire.Address(host, trap.port))
		}
	})
	t.Run("N8: an allow flag lists the address or the localhost in it", func(t *testing.T) {
		wantDialled(t, byFlag, "127.0.0.2", "localhost")
	})
	t.Run("N8: an allow flag with another name does not", func(t *testing.T) {
		wantRefused(t, byFlag, wire.Address("one.example", trap.port))
	})
}

func TestRebinding(t *testing.T) {
	trap, names := newTrap(t), newNameServer(t)
	listed := `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: listed, effect: allow, tcp: [{cidrs: ["127.0.0.2/32"]}], services: [{namespace: ns, name: "*"}]}
`
	u := start(t, upstream.Config{Policy: parsePolicy(t, listed), DNSServer: names.addr(), SpecialAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	good, bad := addresses("127.0.0.2"), addresses("127.0.0.1")
	t.Run("N8: a name is resolved once, so a second answer changes nothing", func(t *testing.T) {
		names.set("rebind.example", good, bad)
		conn, err := u.Dial(t.Context(), wire.Address("rebind.example", trap.port))
		ok(t, err)
		defer conn.Close()
		if ip := conn.RemoteAddr().(*net.TCPAddr).IP.String(); ip != "127.0.0.2" || names.times("rebind.example") != 1 {
			t.Errorf("dialled %s after asking %d times", ip, names.times("rebind.example"))
		}
	})
	t.Run("N8: the next dial is decided by the next answer", func(t *testing.T) {
		wantRefused(t, u, wire.Address("rebind.example", trap.port))
	})
	t.Run("N8: a service's name is resolved once, too, and each connection is decided anew", func(t *testing.T) {
		const name = "svc.ns.svc.cluster.local"
		names.set(name, good, bad)
		target := wire.Service("ns", "svc", strconv.Itoa(int(trap.port)), "http")
		// The trap closes at once: the connection was made, and is not kept.
		if res, body := ask(t, u, target, "/"); res.StatusCode != 502 {
			t.Errorf("got %s %s", res.Status, body)
		}
		if n := names.times(name); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if res, body := ask(t, u, target, "/"); res.StatusCode != 403 {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
}

func TestNAT64(t *testing.T) {
	names := newNameServer(t)
	names.set("private.example", addresses("64:ff9b::a00:1"))
	names.set("mapped.example", addresses("::ffff:10.0.0.1"))
	u := start(t, upstream.Config{DNSServer: names.addr(), Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: all, effect: allow, tcp: [{hosts: ["*"], ports: ["*"]}]}
- {name: not-ten, effect: deny, tcp: [{cidrs: ["10.0.0.0/8"]}]}
`)})
	for _, host := range []string{"private.example", "mapped.example", "64:ff9b::a00:1", "10.0.0.1"} {
		t.Run("N8: a rule for an IPv4 network holds for "+host+", which leads there", func(t *testing.T) {
			_, err := u.Dial(t.Context(), wire.Address(host, 80))
			wantCode(t, err, wire.HopAgent, wire.CodePermissionDenied)
			if err == nil || !strings.Contains(err.Error(), "not-ten") {
				t.Errorf("got %v, want the rule named", err)
			}
		})
	}
	t.Run("N8: so does one that allows, where a cluster has IPv6 alone", func(t *testing.T) {
		u := start(t, upstream.Config{Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: ten, effect: allow, tcp: [{cidrs: ["10.0.0.0/8"]}]}
`)})
		ok(t, u.Check(wire.Address("64:ff9b::a00:1", 80)))
		wantCode(t, u.Check(wire.Address("64:ff9b::b00:1", 80)), wire.HopAgent, wire.CodePermissionDenied)
	})
}

func TestSpecialAddresses(t *testing.T) {
	t.Run("N8: link-local as a whole does not list the metadata service in it", func(t *testing.T) {
		names := newNameServer(t)
		names.set("svc.ns.svc.cluster.local", addresses("169.254.169.254"))
		u := start(t, upstream.Config{
			DNSServer: names.addr(), Services: []upstream.ServiceRule{{Namespace: "*", Name: "*"}},
			SpecialAddresses: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")},
		})
		if res, body := ask(t, u, wire.Service("ns", "svc", "80", "http"), "/"); res.StatusCode != 403 || !strings.Contains(body, "metadata") {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, s := range list {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	for _, p := range prefixes("127.0.0.0/8", "127.0.0.1/32", "::1/128", "169.254.0.0/17", "fe80::/10", "2001::/32", "64:ff9b:1::/48", "169.254.169.254/32") {
		cfg := upstream.Config{SpecialAddresses: []netip.Prefix{p}}
		if err := cfg.Validate(); strings.Contains(err.Error(), "specialAddresses") {
			t.Errorf("%v: %v", p, err)
		}
	}
	for _, p := range append(prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "126.0.0.0/7", "0.0.0.0/1", "127.0.0.1/8", "::ffff:127.0.0.0/104", "fc00::/7", "64:ff9b::7f00:1/128"), netip.Prefix{}) {
		cfg := upstream.Config{SpecialAddresses: []netip.Prefix{p}}
		if err := cfg.Validate(); !strings.Contains(err.Error(), "specialAddresses[0]") {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func TestFamilies(t *testing.T) {
	names := newNameServer(t)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	ok(t, err)
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	u := start(t, upstream.Config{DNSServer: names.addr(), Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: listed, effect: allow, tcp: [{cidrs: ["127.0.0.0/8", "::1/128"]}]}
`)})
	for _, answer := range [][]netip.Addr{addresses("::1", "127.0.0.2"), addresses("127.0.0.3", "127.0.0.2"), addresses("127.0.0.3", "::1", "127.0.0.2")} {
		t.Run(fmt.Sprintf("D10: of %v the one that answers is used", answer), func(t *testing.T) {
			names.set("many.example", answer)
			conn, err := u.Dial(t.Context(), wire.Address("many.example", port))
			ok(t, err)
			conn.Close()
		})
	}
	t.Run("D10: when none answers, the first failure is told", func(t *testing.T) {
		names.set("none.example", addresses("127.0.0.3", "::1"))
		_, err := u.Dial(t.Context(), wire.Address("none.example", port))
		wantCode(t, err, wire.HopTarget, wire.CodeConnectionRefused)
	})
	t.Run("D10: who leaves while addresses are tried is the reason", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := u.Dial(ctx, wire.Address("many.example", port))
		wantCode(t, err, wire.HopClient, wire.CodeCanceled)
	})
}
