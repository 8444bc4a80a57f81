package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/bench/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen serves connections until the end of the test.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { handle(c) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// target is a service until the end of the test.
func target(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var s service.Server
	// The test's own context ends before its cleanups, and until then proxies dial.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

var window = Window{Warmup: time.Millisecond, Length: 30 * time.Millisecond}

// measured takes longer windows as long as nothing fell into one: on a busy machine a
// short one may be over before the load had its turn.
func measured[T any](t *testing.T, measure func(Window) (T, error)) T {
	t.Helper()
	for w := window; ; w.Length *= 2 {
		got, err := measure(w)
		if err == nil {
			return got
		}
		empty := strings.Contains(err.Error(), "nothing came through in") || strings.Contains(err.Error(), "not one")
		if !empty || w.Length > 10*time.Second {
			t.Fatalf("in %v: %v", w.Length, err)
		}
	}
}

// some makes it an error that there was no trip.
func some(trips Trips, err error) (Trips, error) {
	if err == nil {
		_, err = trips.Micros(0.5)
	}
	return trips, err
}

func TestLoadsOfAPort(t *testing.T) {
	d := Port(target(t))
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	edges := 0
	edge := func(begin bool) error {
		if begin != (edges == 0) {
			t.Error("edges in a wrong order")
		}
		edges++
		return nil
	}
	var length time.Duration
	down := measured(t, func(w Window) (Transfer, error) {
		edges, length, w.Edge = 0, w.Length, edge
		return d.Download(t.Context(), 2, w)
	})
	if down.Rate() <= 0 || down.Elapsed < length || edges != 2 {
		t.Errorf("download: %+v, %d edges", down, edges)
	}
	if up := measured(t, func(w Window) (Transfer, error) { return d.Upload(t.Context(), 2, w) }); up.Bytes == 0 {
		t.Errorf("upload: %+v", up)
	}
	trips := measured(t, func(w Window) (Trips, error) { return some(d.PingPong(t.Context(), 3, w)) })
	if trips.Rate() <= 0 {
		t.Error("ping-pong: no rate")
	}
	p50, err := trips.Micros(0.5)
	if p99, _ := trips.Micros(0.99); err != nil || p50 <= 0 || p99 < p50 {
		t.Errorf("ping-pong: p50 %v p99 %v: %v", p50, p99, err)
	}
	if setups := measured(t, func(w Window) (Trips, error) { return some(d.Setups(t.Context(), 2, w)) }); len(setups.Sorted) == 0 {
		t.Error("set-ups: none")
	}
	if err := errors.Join(d.Integrity(t.Context(), 100_000), d.HalfClose(t.Context(), 100_000)); err != nil {
		t.Error(err)
	}
}

// proxy takes CONNECT, checks it, and answers with status before it joins.
func proxy(t *testing.T, want, status string) string {
	t.Helper()
	return listen(t, func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != http.MethodConnect || req.Host != want {
			t.Errorf("the proxy was asked %v %v", req, err)
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 "+status+"\r\n\r\n"); err != nil || !strings.HasPrefix(status, "200") {
			return
		}
		out, err := net.Dial("tcp", want)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		var back sync.WaitGroup
		back.Go(func() { io.Copy(c, out); c.(*net.TCPConn).CloseWrite() })
		io.Copy(out, r)
		out.(*net.TCPConn).CloseWrite()
		back.Wait()
	})
}

func TestConnect(t *testing.T) {
	to := target(t)
	d := Connect(proxy(t, to, "200 Connection established"), to)
	if err := errors.Join(d.Integrity(t.Context(), 10_000), d.HalfClose(t.Context(), 10_000)); err != nil {
		t.Error(err)
	}
	for _, status := range []string{"403 Forbidden", "200 OK\r\nContent-Length: 3\r\n\r\nabc"} {
		if _, err := Connect(proxy(t, to, status), to)(t.Context()); err == nil {
			t.Errorf("a proxy that answers %q: no error", status)
		}
	}
}

func TestChecksFindWhatIsWrong(t *testing.T) {
	to := target(t)
	damage := func(harm func(p []byte)) Dialer {
		return func(ctx context.Context) (net.Conn, error) {
			c, err := Port(to)(ctx)
			return &harmed{Conn: c, harm: harm}, err
		}
	}
	err := damage(func(p []byte) { p[len(p)/2] ^= 1 }).Integrity(t.Context(), 10_000)
	if err == nil || !strings.Contains(err.Error(), "download: other bytes") {
		t.Errorf("a changed byte: %v", err)
	}
	if err := damage(func([]byte) {}).HalfClose(t.Context(), 10_000); err == nil || !strings.Contains(err.Error(), "no half-close") {
		t.Errorf("no half-close: %v", err)
	}
}

// harmed changes what is read, and has no half-close.
type harmed struct {
	net.Conn

	harm func([]byte)
}

func (h *harmed) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.harm(p[:n])
	}
	return n, err
}

func TestTunnelsThatStop(t *testing.T) {
	mute := Port(listen(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		c.Close()
	}))
	// The time of the download ends once its session is open.
	late, cancel := context.WithCancel(t.Context())
	defer cancel()
	silent := func(ctx context.Context) (net.Conn, error) {
		c, err := mute(ctx)
		return &begun{Conn: c, then: cancel}, err
	}
	if _, err := Dialer(silent).Download(late, 1, window); err == nil || !strings.Contains(err.Error(), "nothing came") {
		t.Errorf("a download of nothing: %v", err)
	}
	lost := Port(listen(t, func(c net.Conn) { c.Close() }))
	if _, err := lost.Download(t.Context(), 1, window); err == nil {
		t.Error("a tunnel that ends sessions: no error")
	}
	soon, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if err := lost.Probe(soon); err == nil {
		t.Error("a probe of it: no error")
	}
}

// begun is a connection that tells when it is read for the first time.
type begun struct {
	net.Conn

	then func()
}

func (b *begun) Read(p []byte) (int, error) {
	b.then()
	return b.Conn.Read(p)
}

func TestRequests(t *testing.T) {
	for title, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		var protocols sync.Map
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			protocols.Store(r.Proto, true)
			if r.Header.Get("Authorization") != "Bearer x" {
				http.Error(w, "who?", http.StatusUnauthorized)
			}
		}))
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
		s.StartTLS()
		web := Web{
			URL: s.URL, Header: http.Header{"Authorization": {"Bearer x"}},
			Roots: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		}
		trips := measured(t, func(w Window) (Trips, error) { return web.Requests(t.Context(), 2, http2, w) })
		if trips.Rate() <= 0 {
			t.Errorf("%s: no rate", title)
		}
		if _, two := protocols.Load("HTTP/2.0"); two != http2 {
			t.Errorf("%s was wanted, HTTP/2: %v", title, two)
		}
		web.Header = nil
		if _, err := web.Requests(t.Context(), 1, http2, window); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s, refused: %v", title, err)
		}
		web.Header, web.Least = http.Header{"Authorization": {"Bearer x"}}, 10
		if _, err := web.Requests(t.Context(), 1, http2, window); err == nil || !strings.Contains(err.Error(), "0 bytes where 10") {
			t.Errorf("%s, too short: %v", title, err)
		}
		s.Close()
	}
}
