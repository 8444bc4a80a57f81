package connect_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/connect"
	"github.com/culvertdev/culvert/internal/wire"
)

const vm = "vm1.edge-1.internal:5900"

// echo answers with what came, once all of it has.
func echo(conn *net.TCPConn) {
	text, err := io.ReadAll(conn)
	if err == nil {
		_, _ = io.WriteString(conn, "echo "+string(text))
	}
}

func TestTunnel(t *testing.T) {
	for name, dial := range map[string]func(*bed) *client{
		"plain":        (*bed).dialPlain,
		"TLS":          func(b *bed) *client { return b.dialTLS("http/1.1") },
		"TLS, no ALPN": func(b *bed) *client { return b.dialTLS() },
		// What Go's transports do.
		"TLS, HTTP/1.1 although h2 was offered": func(b *bed) *client { return b.dialTLS("h2", "http/1.1") },
	} {
		t.Run(name+": bytes sent early arrive, and each direction ends on its own", func(t *testing.T) {
			b := newBed(t, nil)
			b.target(vm, echo)
			c := dial(b)
			c.send(head(vm) + "early ")
			if res := c.answer(); res.StatusCode != http.StatusOK || len(res.TransferEncoding) > 0 || res.Header.Get("Content-Length") != "" {
				t.Fatalf("answer: %v", res)
			}
			c.send("late")
			ok(t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
			if text, err := io.ReadAll(c.r); err != nil || string(text) != "echo early late" {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
	t.Run("an HTTP/1.0 client is answered in its version", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, echo)
		c := b.dialPlain()
		c.send(strings.Replace(head(vm, "Proxy-Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1))
		if res := c.answer(); res.StatusCode != http.StatusOK || res.Proto != "HTTP/1.0" {
			t.Fatalf("answer: %v", res)
		}
	})
	t.Run("the target speaks first", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "RFB 003.008\n") })
		c := b.dialTLS("http/1.1")
		c.send(head(vm))
		c.answer()
		if text, err := io.ReadAll(c.r); err != nil || string(text) != "RFB 003.008\n" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("the end of the links ends a tunnel", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) })
		c := b.dialTLS("http/1.1")
		c.send(head(vm))
		c.answer()
		b.pair.Stop()
		if text, err := io.ReadAll(c.r); err == nil {
			t.Errorf("got %q and a clean end, want a broken one", text)
		}
	})
}

func TestNothingBeforeOpen(t *testing.T) {
	b := newBed(t, nil)
	b.target(vm, echo)
	var before atomic.Int64
	before.Store(-1)
	b.mayOpen = func(*front.Session) error { before.Store(b.written.Load()); return nil }
	c := b.dialPlain()
	c.send(head(vm))
	c.answer()
	if n := before.Load(); n != 0 {
		t.Errorf("%d bytes were sent before the session was open", n)
	}
	if b.written.Load() == 0 {
		t.Error("the test does not see what is sent")
	}
}

func TestReset(t *testing.T) {
	reset := func(conn net.Conn) error {
		return errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close())
	}
	t.Run("a RST of the target reaches the client as one", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			_ = reset(conn)
		})
		c := b.dialPlain()
		c.send(head(vm))
		c.answer()
		c.send("x")
		if _, err := c.r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
	t.Run("a RST of the client reaches the target as one", func(t *testing.T) {
		b := newBed(t, nil)
		got := make(chan error, 1)
		b.target(vm, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "x")
			_, err := io.Copy(io.Discard, conn)
			got <- err
		})
		c := b.dialPlain()
		c.send(head(vm))
		c.answer()
		_, err := c.r.ReadByte() // the target is there
		ok(t, err)
		ok(t, reset(c.Conn))
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	b := newBed(t, nil)
	b.target(vm, echo)
	gone := listen(t)
	b.targets.Store("gone.edge-1.internal:5900", gone.Addr().String())
	ok(t, gone.Close())
	b.mayOpen = func(s *front.Session) error {
		refused := func(code wire.Code) error { return &fault.Error{Hop: wire.HopHub, Op: "open", Code: code} }
		switch s.Target.Host {
		case "denied.edge-1.internal":
			return refused(wire.CodePermissionDenied)
		case "away.edge-1.internal":
			return refused(wire.CodeUnavailable)
		case "slow.edge-1.internal":
			return refused(wire.CodeDeadlineExceeded)
		case "busy.edge-1.internal":
			return refused(wire.CodeTooManyRequests)
		}
		return nil
	}
	basic := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	with := func(authority string, fields ...string) string {
		return "CONNECT " + authority + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
	}
	for _, c := range []struct {
		name, request string
		status        int
		code          string
	}{
		{"no credential", with(vm), 407, "unauthenticated"},
		{"a wrong token", with(vm, "Proxy-Authorization: Bearer tok-eve"), 407, "unauthenticated"},
		{"a wrong password", with(vm, "Proxy-Authorization: Basic "+basic("ada:tok-eve")), 407, "unauthenticated"},
		{"the token as the user", with(vm, "Proxy-Authorization: Basic "+basic(token+":")), 407, "unauthenticated"},
		{"no base64", with(vm, "Proxy-Authorization: Basic ~"), 407, "unauthenticated"},
		{"another scheme", with(vm, "Proxy-Authorization: Digest "+token), 407, "unauthenticated"},
		{"two credentials", with(vm, "Proxy-Authorization: Bearer "+token, "Proxy-Authorization: Bearer "+token), 407, "unauthenticated"},
		{"the credential of the target in place of the proxy's", with(vm, "Authorization: Bearer "+token), 407, "unauthenticated"},
		{"no route", head("vm1.edge-2.internal:5900"), 403, "permission-denied"},
		{"no route for the domain itself", head("edge-1.internal:5900"), 403, "permission-denied"},
		{"no route for an address", head("10.2.0.1:5900"), 403, "permission-denied"},
		{"a port that is in no set", head("vm1.edge-1.internal:22"), 403, "permission-denied"},
		{"a port before the range", head("vm1.edge-1.internal:5899"), 403, "permission-denied"},
		{"a port after the range", head("vm1.edge-1.internal:6924"), 403, "permission-denied"},
		{"policy", head("denied.edge-1.internal:5900"), 403, "permission-denied"},
		{"the cluster is away", head("away.edge-1.internal:5900"), 503, "unavailable"},
		{"no answer in time", head("slow.edge-1.internal:5900"), 504, "deadline-exceeded"},
		{"limits", head("busy.edge-1.internal:5900"), 429, "too-many-requests"},
		{"nobody listens", head("gone.edge-1.internal:5900"), 502, "connection-refused"},
		{"no such name", head("nobody.edge-1.internal:5900"), 502, "unreachable"},
		{"no port", head("vm1.edge-1.internal"), 400, "invalid-target"},
		{"a path", with("vm1.edge-1.internal:5900/x", "Proxy-Authorization: Bearer "+token), 400, "invalid-target"},
		{"a user", with("ada@vm1.edge-1.internal:5900", "Proxy-Authorization: Bearer "+token), 400, "invalid-target"},
		{"an URL", head("http://vm1.edge-1.internal:5900"), 400, ""},
		{"a number for an address", head("2130706433:5900"), 400, "invalid-target"},
		{"a short address", head("127.1:5900"), 400, "invalid-target"},
		{"a name for a port", head("vm1.edge-1.internal:https"), 400, ""},
		{"content", head(vm, "Content-Length: 3"), 400, "invalid-target"},
		{"chunks", head(vm, "Transfer-Encoding: chunked"), 400, "invalid-target"},
		{"another method", "GET http://vm1.edge-1.internal/ HTTP/1.1\r\nHost: vm1.edge-1.internal\r\nProxy-Authorization: Bearer " + token + "\r\n\r\n", 405, "invalid-target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(b.sessions())
			conn := b.dialPlain()
			// What follows would be the next request, did the connection go on.
			conn.send(c.request + head(vm))
			res, err := http.ReadResponse(conn.r, &http.Request{Method: http.MethodGet})
			ok(t, err)
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			if res.StatusCode != c.status || res.Header.Get("X-Culvert-Error") != c.code {
				t.Errorf("got %d %s %s, want %d %s", res.StatusCode, res.Header.Get("X-Culvert-Error"), body, c.status, c.code)
			}
			if rest, err := io.ReadAll(conn.r); len(rest) > 0 {
				t.Errorf("the connection went on: %q, %v", rest, err)
			}
			if len(b.sessions()) > before+1 {
				t.Error("what was sent on was taken for a request")
			}
			asked := res.Header.Values("Proxy-Authenticate")
			if want := c.status == 407; want != slices.Equal(asked, []string{`Basic realm="culvert", charset="UTF-8"`, "Bearer"}) {
				t.Errorf("Proxy-Authenticate: %q", asked)
			}
			if c.code == "" {
				return // net/http's own answer
			}
			var status metav1.Status
			if err := json.Unmarshal(body, &status); err != nil || int(status.Code) != c.status || status.Kind != "Status" {
				t.Errorf("body %s: %v", body, err)
			}
			if res.Header.Get("X-Request-Id") == "" || !strings.Contains(status.Message, res.Header.Get("X-Request-Id")) {
				t.Errorf("no request id in %q", status.Message)
			}
		})
	}
	t.Run("no credential is in the log", func(t *testing.T) {
		for _, secret := range []string{token, "tok-eve", basic("ada:tok-eve"), basic(token + ":")} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log has %s", secret)
			}
		}
		if !strings.Contains(b.log.String(), "status=407") {
			t.Error("the log was not written")
		}
	})
}

func TestCredentials(t *testing.T) {
	connected := func(t *testing.T, b *bed, field string) {
		t.Helper()
		c := b.dialPlain()
		c.send(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", vm, field))
		if res := c.answer(); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", field, res.StatusCode)
		}
	}
	basic := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	t.Run("Bearer, or Basic with the token as the password", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, echo)
		for _, field := range []string{
			"Proxy-Authorization: Bearer " + token, "proxy-authorization: bearer  " + token,
			"Proxy-Authorization: Basic " + basic("ada:"+token), "Proxy-Authorization: BASIC " + basic(":"+token),
		} {
			connected(t, b, field)
		}
		for _, s := range b.sessions() {
			if s.Caller.User.GetName() != "ada" || s.Cluster != "edge-1" || s.Source == "" {
				t.Errorf("session %+v", s)
			}
		}
	})
	t.Run("where that is configured, nobody is system:anonymous, and who has a credential is not", func(t *testing.T) {
		b := newBed(t, func(cfg *connect.Config) { cfg.Anonymous = true })
		b.target(vm, echo)
		connected(t, b, "X: y")
		connected(t, b, "Proxy-Authorization: Bearer "+token)
		if got := []string{b.sessions()[0].Caller.User.GetName(), b.sessions()[1].Caller.User.GetName()}; !slices.Equal(got, []string{"system:anonymous", "ada"}) {
			t.Errorf("callers %v", got)
		}
		c := b.dialPlain()
		c.send("CONNECT " + vm + " HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer bad\r\n\r\n")
		if res := c.answer(); res.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("a wrong token became anonymous: %d", res.StatusCode)
		}
	})
	t.Run("names of clusters come before routes, and have their own ports", func(t *testing.T) {
		b := newBed(t, func(cfg *connect.Config) {
			cfg.Names = func(host string, port uint16) (string, wire.Target, bool) {
				return "edge-9", wire.KubernetesTLS(), host == "edge-9.hub.example.com" && port == 6443
			}
		})
		c := b.dialPlain()
		c.send(head("Edge-9.Hub.example.com.:6443"))
		c.answer()
		if len(b.sessions()) != 1 || b.sessions()[0].Cluster != "edge-9" || b.sessions()[0].Target != wire.KubernetesTLS() {
			t.Errorf("sessions %+v", b.sessions())
		}
	})
}
