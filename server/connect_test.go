package server_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/server"
)

func TestConnectProblems(t *testing.T) {
	cfg := config(t)
	cfg.Connect = &server.Connect{
		Listen: []string{"3128"}, PlainListen: []string{":3129"}, Ports: []string{"consoles", "http"},
		Routes: []server.ConnectRoute{{Hosts: []string{"a.example"}, Cluster: "edge-1"}, {Hosts: []string{"A.example."}, Cluster: "edge-2"}, {Cluster: "x"}},
	}
	cfg.Connect.IdleTimeout.Duration = -1
	cfg.WebSocket = &server.WebSocket{Listen: []string{"x"}}
	cfg.WebSocket.IdleTimeout.Duration = -1
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"connect.listen[0]: ", "connect.plainAllowFrom: required with connect.plainListen", "connect.ports[1]: ", "connect.routes[1].hosts[0]: a.example is in [0].hosts[0] already",
		"connect.routes[2]: leads nowhere", "connect.idleTimeout: ", "websocket.listen[0]: ", "websocket.idleTimeout: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	cfg.Connect = &server.Connect{PlainListen: []string{":3129"}, PlainAllowFrom: []string{"10.0.0.1/8"}}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "connect.plainAllowFrom[0]: ") {
		t.Errorf("got %v", err)
	}
}

// ask sends a request on a connection and returns the answer.
func ask(t *testing.T, conn net.Conn, request string) *http.Response {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestConnectListeners(t *testing.T) {
	free := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	cfg, users := config(t), newUsers(t)
	clientCA := filepath.Join(t.TempDir(), "users.crt")
	write(t, clientCA, string(users.auth.PEM()))
	cfg.TLS = &server.TLS{ClientCA: clientCA}
	cfg.Connect = &server.Connect{Listen: []string{free()}, PlainListen: []string{free()}, PlainAllowFrom: []string{"127.0.0.0/8"}}
	cfg.WebSocket = &server.WebSocket{Listen: []string{free()}}
	h := start(t, cfg)
	secure := func(address string, protocols ...string) net.Conn {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, &tls.Config{RootCAs: h.roots(), ServerName: "localhost", NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	const request = "CONNECT vm:5900 HTTP/1.1\r\nHost: vm:5900\r\n\r\n"
	main := h.server.Addr().String()
	t.Run("N5: HTTP/1.1 on a connection that negotiated h2, on the port of all", func(t *testing.T) {
		conn := secure(main, "h2", "http/1.1")
		if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "h2" {
			t.Fatalf("negotiated %q", got)
		}
		if res := ask(t, conn, request); res.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("%d", res.StatusCode)
		}
		// No client has a reason to ask for anything else so.
		if res := ask(t, secure(main, "h2"), "GET /-/healthz HTTP/1.1\r\nHost: hub\r\n\r\n"); res.StatusCode != http.StatusHTTPVersionNotSupported || !res.Close {
			t.Errorf("%d, closed %v", res.StatusCode, res.Close)
		}
	})
	t.Run("N5: HTTP/2 on the port of all, with the client's certificate", func(t *testing.T) {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
			RootCAs: h.roots(), ServerName: "localhost", Certificates: []tls.Certificate{users.client("alice")},
		}}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: patience}
		// Who is known is told that there is no such cluster.
		for path, want := range map[string]int{"/-/healthz": http.StatusOK, "/absent/version": http.StatusNotFound} {
			res, err := client.Get("https://" + main + path)
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil || res.ProtoMajor != 2 || res.StatusCode != want {
				t.Errorf("%s: %s %s, %v, want %d", path, res.Proto, res.Status, err, want)
			}
		}
	})
	t.Run("V3: CONNECT alone on its own listeners, which prefer HTTP/1.1", func(t *testing.T) {
		conn := secure(cfg.Connect.Listen[0], "h2", "http/1.1")
		if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "http/1.1" {
			t.Errorf("negotiated %q", got)
		}
		if res := ask(t, conn, request); res.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("%d", res.StatusCode)
		}
		plain, err := net.Dial("tcp", cfg.Connect.PlainListen[0])
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		if res := ask(t, plain, "GET /-/healthz HTTP/1.1\r\nHost: hub\r\n\r\n"); res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("V7: WebSocket alone on its own listener", func(t *testing.T) {
		if res := ask(t, secure(cfg.WebSocket.Listen[0], "http/1.1"), "GET /-/healthz HTTP/1.1\r\nHost: hub\r\n\r\n"); res.StatusCode != http.StatusNotFound {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("the listeners end with the hub", func(t *testing.T) {
		h.stop()
		for _, address := range []string{cfg.Connect.Listen[0], cfg.Connect.PlainListen[0], cfg.WebSocket.Listen[0]} {
			if conn, err := net.Dial("tcp", address); err == nil {
				conn.Close()
				t.Errorf("%s is still served", address)
			}
		}
	})
}
