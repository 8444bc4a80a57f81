package kube

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

func testUpgrade(t *testing.T, w *world) {
	ways := map[string]string{
		"an https service": "/managed" + servicePath("web", ""), "an http service": "/managed" + servicePath("http:web", ""),
		"kube-apiserver": strings.TrimPrefix(apiRelay(""), hubURL),
	}
	for way, base := range ways {
		for _, protocol := range []string{"SPDY/3.1", "websocket", "tcp"} {
			t.Run("O20,O22: an upgrade to "+protocol+" by way of "+way+" carries bytes both ways, in turns", func(t *testing.T) {
				conn, from := w.upgrade(t, base+"/upgrade/echo", protocol)
				for i := range pieceCount {
					said := fmt.Sprintf("piece %d\n", i)
					_, err := io.WriteString(conn, said)
					must(t, err)
					if heard, err := from.ReadString('\n'); err != nil || heard != said {
						t.Fatalf("heard %q, %v; said %q", heard, err, said)
					}
				}
			})
		}
		t.Run("O20: WebSocket messages by way of "+way+", up to the closing handshake", func(t *testing.T) {
			webSocket(t, w, "wss://"+hubHost+base+"/websocket")
		})
		t.Run("O20: streams of SPDY by way of "+way, func(t *testing.T) { spdyStreams(t, w, hubURL+base+"/spdy") })
	}
	for _, service := range []string{"web", "http:web"} {
		// kube-apiserver's own proxy ends both directions with the first.
		base := "/managed" + servicePath(service, "/upgrade")
		t.Run("N2: on an upgraded stream to "+service+", a client that sends 1 MiB, ends its side and then receives 1 MiB gets all of it", func(t *testing.T) {
			conn, from := w.upgrade(t, base+"/answer", "tcp")
			w.clientFirst(t, conn, from)
		})
		t.Run("N2: on an upgraded stream to "+service+", a service that sends 1 MiB, ends its side and then receives 1 MiB gets all of it", func(t *testing.T) {
			conn, from := w.upgrade(t, base+"/ask", "tcp")
			w.serverFirst(t, conn, from)
		})
	}
}

// clientFirst is a half-close by the client: the peer acts by mode answer.
func (w *world) clientFirst(t *testing.T, conn closeWriter, from io.Reader) {
	t.Helper()
	sent := digestOf(t, io.TeeReader(io.LimitReader(noise(), half), conn))
	must(t, conn.CloseWrite())
	if heard := <-w.services.heard; heard != sent {
		t.Errorf("the other side got %+v, sent was %+v", heard, sent)
	}
	if got := digestOf(t, from); got != sent { // it is the same noise
		t.Errorf("after the half-close came %+v, want %+v", got, sent)
	}
}

// serverFirst is a half-close by the server: the peer acts by mode ask.
func (w *world) serverFirst(t *testing.T, conn closeWriter, from io.Reader) {
	t.Helper()
	want := digestOf(t, io.LimitReader(noise(), half))
	if got := digestOf(t, from); got != want {
		t.Errorf("up to the half-close came %+v, want %+v", got, want)
	}
	_, err := io.CopyN(conn, noise(), half)
	must(t, err)
	must(t, conn.CloseWrite())
	if heard := <-w.services.heard; heard != want {
		t.Errorf("after its half-close the other side got %+v, want %+v", heard, want)
	}
}

// upgrade asks the hub by hand for an upgrade and reads the answer's head.
func (w *world) upgrade(t *testing.T, target, protocol string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	conn := w.dial(t)
	_, err := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: "+hubHost+"\r\nAuthorization: Bearer "+w.ops.token+
		"\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	must(t, err)
	from := bufio.NewReader(conn)
	res, err := http.ReadResponse(from, nil)
	must(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != protocol {
		t.Fatalf("%s: %s %v", target, res.Status, res.Header)
	}
	return conn, from
}

// webSocket exchanges messages of several sizes, text and binary.
func webSocket(t *testing.T, w *world, url string) {
	t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: w.tls(t), HandshakeTimeout: 30 * time.Second, Subprotocols: []string{"v5.channel.k8s.io"}}
	conn, res, err := dialer.DialContext(t.Context(), url, http.Header{"Authorization": {"Bearer " + w.ops.token}})
	if err != nil {
		t.Fatal(err, res)
	}
	defer conn.Close()
	if conn.Subprotocol() != "v5.channel.k8s.io" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	for _, size := range []int{0, 1, 125, 126, 70_000, 1 << 20} {
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			message := bytes.Repeat([]byte("w"), size)
			must(t, conn.WriteMessage(kind, message))
			gotKind, got, err := conn.ReadMessage()
			if err != nil || gotKind != kind || !bytes.Equal(got, message) {
				t.Fatalf("sent %d bytes of kind %d, got %d of %d, %v", size, kind, len(got), gotKind, err)
			}
		}
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "bye")
	must(t, conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(20*time.Second)))
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the close was answered with %v", err)
	}
}

// spdyStreams opens two streams over one connection, as kubectl exec does, and
// ends each from this side.
func spdyStreams(t *testing.T, w *world, url string) {
	t.Helper()
	tripper, err := spdy.NewRoundTripper(w.tls(t))
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+w.ops.token)
	res, err := tripper.RoundTrip(req)
	must(t, err)
	conn, err := tripper.NewConnection(res)
	must(t, err)
	defer conn.Close()
	for _, name := range []string{"stdin", "stdout"} {
		stream, err := conn.CreateStream(http.Header{"Streamtype": {name}})
		must(t, err)
		_, err = io.WriteString(stream, name)
		must(t, err)
		must(t, stream.Close()) // of this side alone
		got, err := io.ReadAll(stream)
		if err != nil || string(got) != name {
			t.Errorf("stream %s: %q, %v", name, got, err)
		}
	}
}
