package identity

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// TestWebSocketToken is about browsers, which can send no header with a WebSocket.
func TestWebSocketToken(t *testing.T) {
	protocol := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(the.ada))
	open := func(protocols ...string) (*websocket.Conn, *http.Response, error) {
		dialer := websocket.Dialer{
			TLSClientConfig: &tls.Config{RootCAs: the.hub.roots, MinVersion: tls.VersionTLS12}, HandshakeTimeout: 30 * time.Second, Subprotocols: protocols,
		}
		return dialer.DialContext(t.Context(), "wss://"+the.hub.addr()+"/managed/api/v1/namespaces/work/configmaps?watch=1&fieldSelector=metadata.name%3Dfirst",
			http.Header{"Origin": {"https://dashboard.example"}})
	}
	t.Run("O14,K7: a token in a WebSocket's subprotocols is a credential, and one that is not good is 401", func(t *testing.T) {
		conn, resp, err := open("binary.k8s.io", protocol)
		if err != nil {
			t.Fatal(err, resp)
		}
		defer conn.Close()
		if conn.Subprotocol() != "binary.k8s.io" {
			t.Errorf("the subprotocol is %q", conn.Subprotocol())
		}
		must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, message, err := conn.ReadMessage()
		var event struct{ Type string }
		if err != nil || json.Unmarshal(message, &event) != nil || event.Type != "ADDED" {
			t.Errorf("%v: %s", err, message)
		}
		bad := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte("bad"))
		for _, protocols := range [][]string{{"binary.k8s.io", bad}, {"binary.k8s.io"}, {"binary.k8s.io", bad, protocol}} {
			if conn, resp, err := open(protocols...); err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%d subprotocols: %v %v", len(protocols), resp, err)
				if err == nil {
					conn.Close()
				}
			}
		}
	})
	t.Run("O4,D7: no server sees that subprotocol", func(t *testing.T) {
		for _, offered := range []string{"binary.k8s.io, " + protocol, protocol + ",binary.k8s.io", "v5.channel.k8s.io," + protocol + " , binary.k8s.io"} {
			got := the.hub.raw().HTTP1(t.Context(), rawhttp.Request{Path: "/recorder/x", Header: []rawhttp.Field{
				{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}, {"Sec-WebSocket-Protocol", offered},
			}})
			if got.Status != http.StatusOK {
				t.Errorf("%d %s %s", got.Status, got.Body, got.Cut)
				continue
			}
			r := arrived(t, got.Body)
			seen := strings.Join(r.Header["Sec-Websocket-Protocol"], ",")
			if strings.Contains(seen, "bearer") || !strings.Contains(seen, "binary.k8s.io") || r.Header.Get("Impersonate-User") != "cluster:hub:ada" {
				t.Errorf("%s arrived as %q, of %q", offered, seen, r.Header["Impersonate-User"])
			}
		}
	})
}
