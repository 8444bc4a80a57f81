package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// talk sends a text over a new connection and reads want and its echo.
func talk(t *testing.T, d *Dialer, greeting string) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	conn, err := d.DialContext(ctx, "tcp", hub)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const text = "over the tunnel"
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(greeting)+len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != greeting+text {
		t.Errorf("read %q, %v, want %q", got, err, greeting+text)
	}
}

func TestThroughProxy(t *testing.T) {
	clean(t)
	cfg, ca := certificate(t)
	basic := "Basic dTpwL3M6d0ByZCU="
	file := filepath.Join(t.TempDir(), "credentials")
	write(t, file, "u:"+secret+"\n")
	long := strings.Repeat("the hub speaks first; ", 1000)
	for _, c := range []struct {
		name     string
		answer   string
		greeting string
		user     string
		file     string
		tls      bool
		auth     string
	}{
		{name: "plain", answer: "HTTP/1.1 200 Connection established\r\n\r\n"},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n"},
		{name: "TLS", answer: "HTTP/1.1 200 OK\r\n\r\n", tls: true},
		{name: "first bytes behind the head", answer: "HTTP/1.1 200 OK\r\n\r\n", greeting: "hello "},
		{name: "many of them", answer: "HTTP/1.1 200 OK\r\n\r\n", greeting: long},
		{name: "the same in TLS", answer: "HTTP/1.1 200 OK\r\n\r\n", greeting: long, tls: true},
		{name: "a length, which means nothing", answer: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", greeting: "hello "},
		{name: "chunked, which means nothing", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", greeting: "hello "},
		{name: "interim answers", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", greeting: "hello "},
		{name: "credentials in the URL", answer: "HTTP/1.1 200 OK\r\n\r\n", user: "u:" + escaped + "@", auth: basic},
		{name: "credentials in a file", answer: "HTTP/1.1 200 OK\r\n\r\n", file: file, auth: basic},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := Config{CredentialsFile: c.file}
			var server *tls.Config
			if c.tls {
				server, settings.CA = cfg, ca
			}
			proxy := startScripted(t, server, c.answer+c.greeting)
			settings.URL = strings.Replace(proxy.url, "://", "://"+c.user, 1)
			talk(t, dialer(t, settings), c.greeting)
			req := <-proxy.requests
			if req.Method != "CONNECT" || req.RequestURI != hub || req.Host != hub {
				t.Errorf("the proxy got %s %s, Host %s", req.Method, req.RequestURI, req.Host)
			}
			if auth := req.Header.Get("Proxy-Authorization"); auth != c.auth {
				t.Errorf("the proxy got the credentials %q, want %q", auth, c.auth)
			}
			if agent := req.Header.Get("User-Agent"); agent != "culvert-agent" {
				t.Errorf("user agent %q", agent)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	clean(t)
	cfg, _ := certificate(t)
	for _, c := range []struct {
		name    string
		answer  string
		user    string
		scheme  string
		tls     bool
		says    []string
		refused bool // counts as nobody answering at the hub's address
	}{
		{name: "407", answer: "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", says: []string{"CONNECT " + hub + ": 407 Proxy Authentication Required: the proxy wants credentials: give user:password in a credentials file"}},
		{name: "407 with credentials", user: "u:" + escaped + "@", answer: "HTTP/1.1 407 " + secret + "\r\nProxy-Authenticate: Basic realm=\"" + secret + "\"\r\n\r\n", says: []string{"407", "does not accept the credentials: correct the credentials file"}},
		{name: "407 with another scheme", answer: "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM, " + secret + " x=y\r\n\r\n", says: []string{"407", "wants one of the authentication schemes Negotiate, NTLM, and Basic is the one that this agent has"}},
		{name: "403", user: "u:" + escaped + "@", answer: "HTTP/1.1 403 " + secret + "\r\nX-Squid-Error: " + secret + "\r\n\r\n", says: []string{"403 Forbidden: the proxy does not allow this connection: allow CONNECT to " + hub}},
		{name: "405", answer: "HTTP/1.1 405 No\r\n\r\n", says: []string{"405 Method Not Allowed: the proxy does not allow"}},
		{name: "502", answer: "HTTP/1.1 502 No\r\n\r\n", says: []string{"502 Bad Gateway: the proxy cannot reach " + hub}, refused: true},
		{name: "503", answer: "HTTP/1.1 503 No\r\n\r\n", says: []string{"503 Service Unavailable: the proxy cannot reach " + hub}, refused: true},
		{name: "504", answer: "HTTP/1.1 504 No\r\n\r\n", says: []string{"504 Gateway Timeout: the proxy cannot reach " + hub}, refused: true},
		{name: "404", answer: "HTTP/1.1 404 No\r\n\r\n", says: []string{"404 Not Found: what listens there does not serve CONNECT"}},
		{name: "429", answer: "HTTP/1.1 429 No\r\n\r\n", says: []string{"429 Too Many Requests: the proxy limits connections"}},
		{name: "302", answer: "HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", says: []string{"302 Found: the proxy refused"}},
		{name: "101", answer: "HTTP/1.1 101 Switching\r\n\r\n", says: []string{"101 Switching Protocols: the proxy refused"}},
		{name: "a status without a name", answer: "HTTP/1.1 599 No\r\n\r\n", says: []string{": 599: the proxy refused"}},
		{name: "not HTTP", user: "u:" + escaped + "@", answer: "220 " + secret + " ESMTP\r\n\r\n", says: []string{"it is not HTTP/1: check the proxy's URL and port"}},
		{name: "a bad header", user: "u:" + escaped + "@", answer: "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n", says: []string{"it is not HTTP/1"}},
		{name: "no answer", answer: "", says: []string{"the proxy closed the connection"}},
		{name: "half an answer", answer: "HTTP/1.1 403 No\r\nX: y\r\n", says: []string{"the proxy closed the connection"}},
		{name: "a long head", answer: "HTTP/1.1 403 No\r\nX: " + strings.Repeat("x", maxAnswer) + "\r\n\r\n", says: []string{"its head is longer than 65536 bytes"}},
		{name: "interim answers without end", answer: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxAnswer/20), says: []string{"its head is longer than"}},
		{name: "http to a proxy that speaks TLS", tls: true, scheme: "http", says: []string{"the proxy"}},
		{name: "https to one that does not", scheme: "https", answer: "HTTP/1.1 400 No\r\n\r\n", says: []string{"does not answer in TLS: use http://"}},
		{name: "https to one that says nothing", scheme: "https", says: []string{"closed the connection in the TLS handshake: use http://"}},
		{name: "a foreign CA", tls: true, says: []string{"tls:", "certificate signed by unknown authority", "its CA is given by the setting ca of the proxy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var server *tls.Config
			if c.tls {
				server = cfg
			}
			proxy := startScripted(t, server, c.answer)
			scheme, address, _ := strings.Cut(proxy.url, "://")
			if c.scheme != "" {
				scheme = c.scheme
			}
			conn, err := dialer(t, Config{URL: scheme + "://" + c.user + address}).DialContext(within(t, 10*time.Second), "tcp", hub)
			if err == nil {
				conn.Close()
				t.Fatal("connected")
			}
			for _, part := range append(c.says, "proxy "+scheme+"://"+address+": ") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: does not say %q", err, part)
				}
			}
			withoutSecret(t, err.Error())
			if got := errors.Is(err, syscall.ECONNREFUSED); got != c.refused {
				t.Errorf("is ECONNREFUSED: %v, want %v", got, c.refused)
			}
		})
	}
}

func TestProxyAway(t *testing.T) {
	clean(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	ln.Close()
	_, err = dialer(t, Config{URL: url}).DialContext(within(t, 10*time.Second), "tcp", hub)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.HasPrefix(fmt.Sprint(err), "proxy "+url+": connect:") {
		t.Errorf("%v", err)
	}
}

// A proxy that takes the request and says nothing is given up, and one that the
// caller has given up too.
func TestProxyWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration // 0: none
		cancel  time.Duration // 0: never
		after   time.Duration
		cause   error
	}{
		{name: "the bound", after: answerTimeout, cause: context.DeadlineExceeded},
		{name: "the caller's deadline", timeout: time.Second, after: time.Second, cause: context.DeadlineExceeded},
		{name: "cancelled", cancel: 2 * time.Second, after: 2 * time.Second, cause: context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				go func() { _, _ = io.Copy(io.Discard, far) }() // ends with the pipe
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.timeout > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.timeout)
					defer cancel()
				}
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				started := time.Now()
				_, err := establish(ctx, near, "http://p", hub, "")
				if took := time.Since(started); took != c.after || !errors.Is(err, c.cause) {
					t.Errorf("after %v: %v, want %v after %v", took, err, c.cause, c.after)
				}
			})
		})
	}
}

// The context that a connection was made with has no effect on it later.
func TestConnectionOutlivesItsContext(t *testing.T) {
	clean(t)
	proxy := startScripted(t, nil, "HTTP/1.1 200 OK\r\n\r\n")
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := dialer(t, Config{URL: proxy.url}).DialContext(ctx, "tcp", hub)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestFilesAreFollowed(t *testing.T) {
	clean(t)
	t.Run("credentials", func(t *testing.T) {
		proxy := startScripted(t, nil, "HTTP/1.1 200 OK\r\n\r\n")
		file := filepath.Join(t.TempDir(), "credentials")
		write(t, file, "u:one")
		var log strings.Builder
		d, err := New(Config{URL: proxy.url, CredentialsFile: file}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct{ text, want, problem string }{
			{text: "u:one", want: "one"},
			{text: "u:two\r\n", want: "two"},
			{text: secret[:3] + "without a colon", want: "two", problem: "no colon in it"},
			{text: "u:" + secret + "\nv:w", want: "two", problem: "second line"},
			{text: "u:" + strings.Repeat("x", maxCredentials), want: "two", problem: "larger than"},
			{text: "u:", want: ""},
			{text: "u:three:3", want: "three:3"},
		} {
			write(t, file, step.text)
			for range 2 { // a problem is reported once
				talk(t, d, "")
				req := <-proxy.requests
				req.Header["Authorization"] = req.Header["Proxy-Authorization"]
				_, password, _ := req.BasicAuth()
				if password != step.want {
					t.Errorf("%q: the proxy got the password %q, want %q", step.text, password, step.want)
				}
			}
			if got := d.Watched()[0].Status(); (got.Err == "") != (step.problem == "") || !strings.Contains(got.Err, step.problem) {
				t.Errorf("%q: status %+v, want the problem %q", step.text, got, step.problem)
			}
		}
		if n := strings.Count(log.String(), "stay in force"); n != 3 {
			t.Errorf("%d reports, want 3: %s", n, log.String())
		}
		withoutSecret(t, log.String())
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		talk(t, d, "")
	})

	t.Run("CA", func(t *testing.T) {
		first, ca := certificate(t)
		proxy := startScripted(t, first, "HTTP/1.1 200 OK\r\n\r\n")
		foreign := foreignCA(t)
		right, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		write(t, ca, foreign)
		d := dialer(t, Config{URL: proxy.url, CA: ca})
		if _, err := d.DialContext(within(t, 10*time.Second), "tcp", hub); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Fatalf("a foreign CA: %v", err)
		}
		write(t, ca, string(right))
		ctx := within(t, 10*time.Second)
		for { // files are looked at once a second
			conn, err := d.DialContext(ctx, "tcp", hub)
			if err == nil {
				conn.Close()
				break
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		if watched := d.Watched(); len(watched) != 1 {
			t.Errorf("%d files are watched, want the CA", len(watched))
		}
	})
}
