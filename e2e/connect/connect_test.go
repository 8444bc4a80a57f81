package connect

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const vm = "vm1.edge-1.internal:5900"

func bearer(token string) string { return "Proxy-Authorization: Bearer " + token }

func basicOf(token string) string { return base64.StdEncoding.EncodeToString([]byte("any:" + token)) }

// tunnel is a connection after the answer to CONNECT.
type tunnel struct {
	net.Conn

	r      *bufio.Reader
	answer *http.Response
}

// connect sends a CONNECT to one of the hub's listeners, in TLS unless it is the
// plain one.
func (h *hub) connect(ctx context.Context, proxy, authority string, fields ...string) (*tunnel, int, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, 0, err
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, 0, err
	}
	if proxy != h.plain.Addr() {
		conn = tls.Client(conn, &tls.Config{RootCAs: h.roots, ServerName: testbed.HubAddress.String(), NextProtos: []string{"http/1.1"}})
	}
	head := "CONNECT " + authority + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
	if _, err := io.WriteString(conn, head); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	t := &tunnel{Conn: conn, r: bufio.NewReader(conn)}
	if t.answer, err = http.ReadResponse(t.r, &http.Request{Method: http.MethodConnect}); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return t, t.answer.StatusCode, nil
}

// echoes sends text, ends its direction, and returns what comes back.
func (c *tunnel) echoes(text string) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c.r)
	return string(got), err
}

func TestConnect(t *testing.T) {
	h := the.hub
	for name, proxy := range map[string]string{
		"V1,N5: on the port of all": h.main.Addr(), "V1,V3: on a TLS listener": h.secure.Addr(), "V1,V5: on a plain listener": h.plain.Addr(),
	} {
		t.Run(name+", a target behind the agent is reached by name and by address, each direction ending on its own", func(t *testing.T) {
			for _, authority := range []string{vm, "192.0.2.2:5900", "VM1.Edge-1.internal.:5900"} {
				c, status, err := h.connect(t.Context(), proxy, authority, bearer(the.ada))
				must(t, err)
				defer c.Close()
				if status != http.StatusOK {
					t.Fatalf("%s: %d", authority, status)
				}
				if got, err := c.echoes("hello"); err != nil || got != "echo hello" {
					t.Errorf("%s: got %q, %v", authority, got, err)
				}
			}
		})
		t.Run("K4: curl, "+name, func(t *testing.T) {
			scheme := "https"
			if proxy == h.plain.Addr() {
				scheme = "http"
			}
			out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "20", "--noproxy", "", "--proxytunnel", "--proxy-cacert", h.ca(),
				"--proxy", scheme+"://any:"+the.ada+"@"+proxy, "http://vm1.edge-1.internal:5901/").CombinedOutput()
			if err != nil || string(out) != "web vm1.edge-1.internal:5901 []" {
				t.Errorf("curl: %v: %s", err, out)
			}
		})
		if proxy == h.plain.Addr() {
			continue
		}
		t.Run("K4: Go's transport, which offers h2 and speaks HTTP/1.1, "+name, func(t *testing.T) {
			via := &url.URL{Scheme: "https", Host: proxy, User: url.UserPassword("any", the.ada)}
			transport := &http.Transport{
				Proxy: http.ProxyURL(via), TLSClientConfig: &tls.Config{RootCAs: h.roots, ServerName: testbed.HubAddress.String()}, ForceAttemptHTTP2: true,
			}
			defer transport.CloseIdleConnections()
			// The target speaks no TLS: the answer to its ClientHello proves the tunnel.
			_, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Get("https://vm1.edge-1.internal:5901/")
			if err == nil || !strings.Contains(err.Error(), "HTTP response to HTTPS client") {
				t.Errorf("got %v, want the target's own answer", err)
			}
		})
	}
	t.Run("V1,N5: over HTTP/2, on the port of all", func(t *testing.T) {
		protocols := new(http.Protocols)
		protocols.SetHTTP2(true)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots}, Protocols: protocols}
		defer transport.CloseIdleConnections()
		r, w := io.Pipe()
		req := (&http.Request{
			Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: h.main.Addr()}, Host: vm, Body: r,
			Header: http.Header{"Proxy-Authorization": {"Bearer " + the.ada}},
		}).WithContext(t.Context())
		res, err := transport.RoundTrip(req)
		must(t, err)
		defer res.Body.Close()
		_, err = io.WriteString(w, "hello")
		must(t, err)
		must(t, w.Close())
		if got, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || err != nil || string(got) != "echo hello" {
			t.Errorf("%d %q, %v", res.StatusCode, got, err)
		}
	})
}

func TestRefused(t *testing.T) {
	refused := func(t *testing.T, h *hub, authority string, want int, fields ...string) {
		t.Helper()
		c, status, err := h.connect(t.Context(), h.plain.Addr(), authority, fields...)
		must(t, err)
		defer c.Close()
		body, err := io.ReadAll(c.answer.Body)
		must(t, err)
		if status != want || c.answer.Header.Get("X-Culvert-Error") == "" {
			t.Errorf("%s: %d %s, want %d", authority, status, body, want)
		}
	}
	h, ada := the.hub, bearer(the.ada)
	t.Run("V2: a port in no set, the hub's policy and the agent's", func(t *testing.T) {
		refused(t, h, "vm1.edge-1.internal:22", 403, ada)
		refused(t, h, "vm1.edge-1.internal:5903", 403, ada)
		refused(t, h, "vm1.edge-1.internal:5904", 403, ada)
		refused(t, h, vm, 403, "Proxy-Authorization: Bearer "+the.secret2)
	})
	t.Run("V2: special addresses in every spelling, and behind a name", func(t *testing.T) {
		for _, host := range []string{
			"127.0.0.1", "127.1.2.3", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::1]", "169.254.169.254", "[::ffff:169.254.169.254]",
			"localhost", "localhost.", "LocalHost", "meta.edge-1.internal", "META.edge-1.internal.",
		} {
			refused(t, h, host+":443", 403, ada)
		}
		for _, host := range []string{"2130706433", "127.1", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[fe80::1%25eth0]"} {
			c, status, err := h.connect(t.Context(), h.plain.Addr(), host+":443", ada)
			must(t, err)
			c.Close()
			if status != 400 && status != 403 {
				t.Errorf("%s: %d", host, status)
			}
		}
	})
	t.Run("V1: the target's refusal and a name that does not exist are told as such", func(t *testing.T) {
		refused(t, h, "vm1.edge-1.internal:5902", 502, ada)
		refused(t, h, "nobody.edge-1.internal:5900", 502, ada)
		refused(t, h, "vm.edge-2.internal:5900", 404, ada) // no agent of that cluster ever joined
		refused(t, h, "vm.edge-3.internal:5900", 403, ada)
		refused(t, h, "vm1.edge-1.internal", 400, ada)
	})
	t.Run("V9: nobody gets in without a credential, or with a wrong one", func(t *testing.T) {
		refused(t, the.strict, vm, 407)
		refused(t, the.strict, vm, 407, "Authorization: Bearer "+the.ada)
		refused(t, the.strict, vm, 407, "Proxy-Authorization: Bearer wrong")
		refused(t, h, vm, 407, "Proxy-Authorization: Bearer wrong")
	})
	t.Run("V9: where that is configured, nobody reaches what a rule names system:anonymous for, and nothing else", func(t *testing.T) {
		c, status, err := h.connect(t.Context(), h.plain.Addr(), "vm1.edge-1.internal:5901")
		must(t, err)
		c.Close()
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
		refused(t, h, vm, 403)
	})
	t.Run("V5: a client of no listed network is not served in clear text", func(t *testing.T) {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", h.plain.Addr())
		if err != nil {
			return // reset so early that dialling fails
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		_, _ = io.WriteString(conn, "CONNECT "+vm+" HTTP/1.1\r\nHost: x\r\n"+ada+"\r\n\r\n") // may be reset by now
		if text, err := io.ReadAll(conn); len(text) > 0 {
			t.Errorf("answered %q, %v", text, err)
		}
	})
}

func TestWebSocket(t *testing.T) {
	h := the.hub
	dial := func(t *testing.T, hub, path string, header http.Header, protocols ...string) (*websocket.Conn, *http.Response) {
		t.Helper()
		dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: h.roots}, Subprotocols: protocols, HandshakeTimeout: 30 * time.Second}
		conn, res, err := dialer.DialContext(t.Context(), "wss://"+hub+path, header)
		if res == nil {
			t.Fatal(err)
		}
		if conn != nil {
			must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
			t.Cleanup(func() { conn.Close() })
		}
		return conn, res
	}
	ada := http.Header{"Authorization": {"Bearer " + the.ada}}
	token := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(the.ada))
	for name, hub := range map[string]string{"V7,N5: on the port of all": h.main.Addr(), "V7: on a listener of its own": h.consoles.Addr()} {
		t.Run(name+", a page with a token reaches what CONNECT reaches", func(t *testing.T) {
			conn, res := dial(t, hub, "/-/tcp/edge-1/vm1.edge-1.internal:5901", http.Header{"Origin": {"https://page.example"}}, token, "binary")
			if conn == nil || conn.Subprotocol() != "binary" {
				t.Fatalf("answer %v", res.Status)
			}
			must(t, conn.WriteMessage(websocket.BinaryMessage, []byte("GET / HTTP/1.1\r\nHost: vm1\r\n")))
			must(t, conn.WriteMessage(websocket.BinaryMessage, []byte("Connection: close\r\n\r\n")))
			var all strings.Builder
			var end *websocket.CloseError
			for end == nil {
				_, data, err := conn.ReadMessage()
				all.Write(data)
				if err != nil && !errors.As(err, &end) {
					t.Fatal(err)
				}
			}
			if !strings.HasSuffix(all.String(), "web vm1 []") || end.Code != websocket.CloseNormalClosure {
				t.Errorf("got %q, %v", all.String(), end)
			}
		})
	}
	t.Run("V7: and nothing else", func(t *testing.T) {
		for path, want := range map[string]int{
			"/-/tcp/edge-1/vm1.edge-1.internal:22": 403, "/-/tcp/edge-1/vm1.edge-1.internal:5903": 403, "/-/tcp/edge-1/vm1.edge-1.internal:5904": 403,
			"/-/tcp/edge-1/127.0.0.1:443": 403, "/-/tcp/edge-1/[::ffff:127.0.0.1]:443": 403, "/-/tcp/edge-1/2130706433:443": 400,
			"/-/tcp/edge-1/vm1.edge-1.internal:5902": 502, "/-/tcp/edge-1/nobody.edge-1.internal:5900": 502, "/-/tcp/edge-2/vm:5900": 404,
		} {
			if _, res := dial(t, h.main.Addr(), path, ada); res.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
			}
		}
		if _, res := dial(t, h.main.Addr(), "/-/tcp/edge-1/192.0.2.2:5900", nil); res.StatusCode != 401 {
			t.Errorf("nobody: %d", res.StatusCode)
		}
		if _, res := dial(t, h.main.Addr(), "/-/tcp/edge-1/192.0.2.2:5900", ada, "base64"); res.StatusCode != 400 {
			t.Errorf("base64: %d", res.StatusCode)
		}
	})
}

// TestAway comes last in this file, since it ends the agent for a while.
func TestAway(t *testing.T) {
	t.Run("V1: open tunnels end with the agent, and a cluster that is away is told as such", func(t *testing.T) {
		c, status, err := the.hub.connect(t.Context(), the.hub.plain.Addr(), vm, bearer(the.ada))
		must(t, err)
		defer c.Close()
		if status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		must(t, the.agent.Kill9())
		defer func() {
			must(t, the.agent.Start(t.Context()))
			must(t, testbed.Poll(t.Context(), "the tunnel", func(ctx context.Context) error {
				again, status, err := the.hub.connect(ctx, the.hub.plain.Addr(), vm, bearer(the.ada))
				if err == nil {
					again.Close()
				}
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				return err
			}))
		}()
		if text, err := io.ReadAll(c.r); err == nil {
			t.Errorf("a clean end after %q", text)
		}
		// The hub ends what was open and forgets the agent, in either order.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		must(t, testbed.Poll(ctx, "the cluster to be away", func(ctx context.Context) error {
			away, status, err := the.hub.connect(ctx, the.hub.plain.Addr(), vm, bearer(the.ada))
			if err != nil {
				return err
			}
			away.Close()
			if status != http.StatusServiceUnavailable {
				return fmt.Errorf("status %d", status)
			}
			return nil
		}))
	})
}
