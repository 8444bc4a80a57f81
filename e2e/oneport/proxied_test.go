package oneport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// once is a client that does one thing and sees that it was done right.
type once interface {
	once(ctx context.Context) error
}

// proxied are the ways that go by CONNECT and WebSocket.
func proxied() []way {
	return []way{
		// As a kubeconfig with proxy-url and tls-server-name does it: client-go has one
		// TLS configuration for the proxy and the API server, and offers h2 to both.
		{"CONNECT, the API server's TLS end to end", func(i int) (once, func()) {
			roots := the.westRoots.Clone()
			roots.AppendCertsFromPEM(the.hubCA)
			t := &http.Transport{
				Proxy:             http.ProxyURL(&url.URL{Scheme: "https", Host: address(), User: url.UserPassword("any", token("hub", i))}),
				TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "kubernetes", MinVersion: tls.VersionTLS13},
				ForceAttemptHTTP2: true,
			}
			return &caller{
				base: "https://west." + domain, bearer: token("west", i), user: name("west", i), cluster: "west", client: &http.Client{Transport: t},
			}, t.CloseIdleConnections
		}},
		{"CONNECT, HTTP/1.1, bytes", func(i int) (once, func()) {
			return &talker{name: "plain", dial: func(ctx context.Context) (net.Conn, error) { return connectHTTP1(ctx, i) }}, func() {}
		}},
		{"CONNECT, HTTP/2, bytes", func(i int) (once, func()) {
			t := transport(&tls.Config{RootCAs: the.roots, ServerName: "hub." + domain}, true)
			return &talker{name: "plain", dial: func(ctx context.Context) (net.Conn, error) { return connectHTTP2(ctx, t, i) }}, t.CloseIdleConnections
		}},
		{"WebSocket, bytes", func(i int) (once, func()) {
			return &talker{name: "plain", dial: func(ctx context.Context) (net.Conn, error) { return overWebSocket(ctx, i) }}, func() {}
		}},
	}
}

func plainTarget() string { return "127.0.0.1:" + the.plain.port }

// early is a connection of which something was read already.
type early struct {
	net.Conn

	r *bufio.Reader
}

func (e *early) Read(p []byte) (int, error) { return e.r.Read(p) }

func connectHTTP1(ctx context.Context, i int) (net.Conn, error) {
	conn, err := secured(&tls.Config{RootCAs: the.roots, ServerName: "hub." + domain, NextProtos: []string{"http/1.1"}})(ctx)
	if err != nil {
		return nil, err
	}
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: plainTarget()}, Host: plainTarget(),
		Header: http.Header{"Proxy-Authorization": {"Bearer " + token("hub", i)}},
	}
	if err := req.Write(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &early{conn, r}, nil
}

// stream is a stream of HTTP/2.
type stream struct {
	io.ReadCloser  // from the target
	io.WriteCloser // to it
}

func (s *stream) Close() error { return errors.Join(s.WriteCloser.Close(), s.ReadCloser.Close()) }

func (s *stream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

func connectHTTP2(ctx context.Context, t *http.Transport, i int) (net.Conn, error) {
	from, to := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+address(), from)
	if err != nil {
		return nil, err
	}
	req.Host = plainTarget()
	req.Header.Set("Proxy-Authorization", "Bearer "+token("hub", i))
	res, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		return nil, errors.Join(fmt.Errorf("%s %s", res.Proto, res.Status), res.Body.Close())
	}
	return &stream{res.Body, to}, nil
}

// messages is a WebSocket as a stream of bytes.
type messages struct {
	*websocket.Conn

	rest io.Reader
}

func (m *messages) Read(p []byte) (int, error) {
	for {
		if m.rest != nil {
			if n, err := m.rest.Read(p); n > 0 || !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		_, r, err := m.NextReader()
		if err != nil {
			return 0, err
		}
		m.rest = r
	}
}

func (m *messages) Write(p []byte) (int, error) {
	return len(p), m.WriteMessage(websocket.BinaryMessage, p)
}

func (m *messages) SetDeadline(t time.Time) error {
	return errors.Join(m.SetReadDeadline(t), m.SetWriteDeadline(t))
}

func overWebSocket(ctx context.Context, i int) (net.Conn, error) {
	d := websocket.Dialer{
		NetDialContext: toHub, Subprotocols: []string{"binary"},
		TLSClientConfig: &tls.Config{RootCAs: the.roots, MinVersion: tls.VersionTLS13},
	}
	conn, res, err := d.DialContext(ctx, "wss://hub."+domain+"/-/tcp/east/"+plainTarget(), http.Header{"Authorization": {"Bearer " + token("hub", i)}})
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	return &messages{Conn: conn}, nil
}
