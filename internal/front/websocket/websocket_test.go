package websocket_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/websocket"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	token    = "tok-ada"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bed is the front end on a TLS listener, with real links to an agent's end that
// dials the target.
type bed struct {
	t      *testing.T
	server *httptest.Server
	pair   *muxtest.Pair
	target net.Listener

	mu      sync.Mutex
	refusal error // of Open, where there is one
	opened  int
}

// Admit implements front.Sessions.
func (b *bed) Admit(context.Context, *front.Session) error { return nil }

// Refuse implements front.Sessions.
func (b *bed) Refuse(context.Context, *front.Session, error) {}

// Open implements front.Sessions.
func (b *bed) Open(ctx context.Context, s *front.Session) (*mux.Session, error) {
	b.mu.Lock()
	b.opened++
	refusal := b.refusal
	b.mu.Unlock()
	if refusal != nil {
		return nil, refusal
	}
	return b.pair.Dialler.Open(ctx, mux.Request{Target: s.Target})
}

func (b *bed) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusal = err
}

func (b *bed) sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened
}

func newBed(t *testing.T, serve func(*net.TCPConn), change func(*websocket.Config)) *bed {
	t.Helper()
	b := &bed{t: t}
	var err error
	b.target, err = net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	b.pair = muxtest.New(t, func(_, acceptor *mux.Config) {
		acceptor.Handler = func(_ context.Context, in *mux.Incoming) {
			conn, err := net.Dial("tcp", b.target.Addr().String())
			if err != nil {
				in.Refuse(wire.CodeConnectionRefused, wire.HopTarget, err.Error())
				return
			}
			session, err := in.Accept()
			if err != nil {
				conn.Close()
				return
			}
			splice.Join(session, conn.(*net.TCPConn), wire.HopTarget)
		}
	})
	ports, err := policy.ParsePorts([]string{"consoles"})
	ok(t, err)
	cfg := websocket.Config{Sessions: b, Identify: identify, Ports: ports, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	h, err := websocket.New(cfg)
	ok(t, err)
	b.server = httptest.NewUnstartedServer(nil)
	b.server.Config = h.Server()
	b.server.StartTLS()
	var targets sync.WaitGroup
	targets.Go(func() {
		for {
			conn, err := b.target.Accept()
			if err != nil {
				return
			}
			targets.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		b.target.Close()
		b.pair.Stop()
		b.server.Close()
		targets.Wait()
	})
	return b
}

// identify knows one token, in Authorization or in Kubernetes' subprotocol, and
// takes X-Certificate for the certificate of the connection.
func identify(r *http.Request, _ string) (identity.Caller, error) {
	ada := &user.DefaultInfo{Name: "ada"}
	bearer := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	protocols := r.Header.Get("Sec-Websocket-Protocol")
	switch {
	case r.Header.Get("Authorization") == "Bearer "+token:
		return identity.Caller{User: ada, Method: identity.MethodStaticToken}, nil
	case strings.HasPrefix(protocols, bearer):
		r.Header.Set("Sec-Websocket-Protocol", strings.TrimLeft(strings.TrimPrefix(protocols, bearer), ", "))
		return identity.Caller{User: ada, Method: identity.MethodStaticToken}, nil
	case r.Header.Get("X-Certificate") != "":
		return identity.Caller{User: ada, Method: identity.MethodCertificate}, nil
	}
	return identity.Caller{}, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("wrong token")}
}

const path = "/-/tcp/edge-1/vm1:5900"

// dial opens a WebSocket; the answer is there in any case.
func (b *bed) dial(path string, header http.Header, protocols ...string) (*gorilla.Conn, *http.Response, error) {
	b.t.Helper()
	if header == nil {
		header = http.Header{"Authorization": {"Bearer " + token}}
	}
	dialer := gorilla.Dialer{TLSClientConfig: b.server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), Subprotocols: protocols, HandshakeTimeout: patience}
	dialer.TLSClientConfig.NextProtos = nil
	conn, res, err := dialer.Dial("wss"+strings.TrimPrefix(b.server.URL, "https")+path, header)
	if conn != nil {
		ok(b.t, conn.SetReadDeadline(time.Now().Add(patience)))
		b.t.Cleanup(func() { conn.Close() })
	}
	return conn, res, err
}

func (b *bed) open() *gorilla.Conn {
	b.t.Helper()
	conn, _, err := b.dial(path, nil, "binary")
	ok(b.t, err)
	return conn
}

// read returns the bytes up to the end, and the close code.
func read(conn *gorilla.Conn) (string, int) {
	var all strings.Builder
	for {
		_, data, err := conn.ReadMessage()
		if closed := (*gorilla.CloseError)(nil); errors.As(err, &closed) {
			return all.String(), closed.Code
		}
		if err != nil {
			return all.String() + " " + err.Error(), 0
		}
		all.Write(data)
	}
}

func upTo(n int) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		data := make([]byte, n)
		if _, err := io.ReadFull(conn, data); err == nil {
			_, _ = io.WriteString(conn, "echo "+string(data))
		}
	}
}

func TestStream(t *testing.T) {
	t.Run("messages are chunks of the stream, and 1000 says that the target has closed", func(t *testing.T) {
		b := newBed(t, upTo(6), nil)
		conn := b.open()
		for _, part := range []string{"a", "", "bcd", "ef"} {
			ok(t, conn.WriteMessage(gorilla.BinaryMessage, []byte(part)))
		}
		if text, code := read(conn); text != "echo abcdef" || code != gorilla.CloseNormalClosure {
			t.Errorf("got %q, %d", text, code)
		}
	})
	t.Run("the client's Close ends the target's connection", func(t *testing.T) {
		ended := make(chan struct{})
		b := newBed(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn); close(ended) }, nil)
		conn := b.open()
		ok(t, conn.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, ""), time.Now().Add(patience)))
		<-ended
		if _, code := read(conn); code != gorilla.CloseNormalClosure {
			t.Errorf("code %d", code)
		}
	})
	t.Run("1011 says that the target failed", func(t *testing.T) {
		b := newBed(t, func(conn *net.TCPConn) {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			_ = conn.SetLinger(0)
		}, nil)
		conn := b.open()
		ok(t, conn.WriteMessage(gorilla.BinaryMessage, []byte("x")))
		if _, code := read(conn); code != gorilla.CloseInternalServerErr {
			t.Errorf("code %d", code)
		}
	})
	t.Run("1003 refuses text", func(t *testing.T) {
		b := newBed(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, nil)
		conn := b.open()
		ok(t, conn.WriteMessage(gorilla.TextMessage, []byte("x")))
		if _, code := read(conn); code != gorilla.CloseUnsupportedData {
			t.Errorf("code %d", code)
		}
	})
	t.Run("1009 refuses a message that is too large", func(t *testing.T) {
		b := newBed(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, nil)
		conn := b.open()
		ok(t, conn.WriteMessage(gorilla.BinaryMessage, make([]byte, websocket.MaxMessage+1)))
		if _, code := read(conn); code != gorilla.CloseMessageTooBig {
			t.Errorf("code %d", code)
		}
	})
	t.Run("a client that does not read holds the target back", func(t *testing.T) {
		const most = 64 << 20
		sent := make(chan int, 1)
		b := newBed(t, func(conn *net.TCPConn) {
			_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			n, chunk := 0, make([]byte, 64<<10)
			for n < most {
				m, err := conn.Write(chunk)
				n += m
				if err != nil {
					break
				}
			}
			sent <- n
		}, nil)
		b.open()
		if n := <-sent; n >= most {
			t.Errorf("the target got rid of %d bytes that nobody read", n)
		}
	})
	t.Run("the end of the links ends a session", func(t *testing.T) {
		b := newBed(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, nil)
		conn := b.open()
		b.pair.Stop()
		if _, code := read(conn); code != gorilla.CloseInternalServerErr && code != gorilla.CloseGoingAway {
			t.Errorf("code %d", code)
		}
	})
}

func TestUpgrade(t *testing.T) {
	b := newBed(t, upTo(1), nil)
	bearer := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	certificate := func(fields ...string) http.Header {
		h := http.Header{"X-Certificate": {"ada"}}
		for i := 0; i < len(fields); i += 2 {
			h.Set(fields[i], fields[i+1])
		}
		return h
	}
	for _, c := range []struct {
		name, path string
		header     http.Header
		offer      []string
		status     int
		chosen     string
	}{
		{"binary", path, nil, []string{"binary"}, 101, "binary"},
		{"no subprotocol", path, nil, nil, 101, ""},
		{"binary beside the base64 of old clients", path, nil, []string{"base64", "binary"}, 101, "binary"},
		{"base64 alone", path, nil, []string{"base64"}, 400, ""},
		{"another subprotocol", path, nil, []string{"mqtt"}, 400, ""},
		{"the token as a subprotocol", path, http.Header{}, []string{bearer, "binary"}, 101, "binary"},
		{"the token as a subprotocol, from any page", path, http.Header{"Origin": {"https://other.example"}}, []string{bearer, "binary"}, 101, "binary"},
		{"nobody", path, http.Header{}, nil, 401, ""},
		{"a certificate without a page", path, certificate(), nil, 101, ""},
		{"a certificate and a page of the hub", path, certificate("Origin", b.server.URL, "Sec-Fetch-Site", "same-origin"), nil, 101, ""},
		{"a certificate and a page of another origin", path, certificate("Origin", "https://other.example"), nil, 403, ""},
		{"a certificate and a page of another site", path, certificate("Sec-Fetch-Site", "cross-site"), nil, 403, ""},
		{"a port that is in no set", "/-/tcp/edge-1/vm1:22", nil, nil, 403, ""},
		{"no port", "/-/tcp/edge-1/vm1", nil, nil, 400, ""},
		{"no cluster", "/-/tcp//vm1:5900", nil, nil, 400, ""},
		{"a number for an address", "/-/tcp/edge-1/2130706433:5900", nil, nil, 400, ""},
		{"an escaped address", "/-/tcp/edge-1/%5Bfd00::1%5D%3A5900", nil, nil, 101, ""},
		{"another path", "/-/healthz", nil, nil, 404, ""},
		{"an escaped prefix", "/-/%74cp/edge-1/vm1:5900", nil, nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, res, err := b.dial(c.path, c.header, c.offer...)
			if res == nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status {
				body, _ := io.ReadAll(res.Body)
				t.Fatalf("%d %s, want %d", res.StatusCode, body, c.status)
			}
			if c.status == 101 && conn.Subprotocol() != c.chosen {
				t.Errorf("subprotocol %q, want %q", conn.Subprotocol(), c.chosen)
			}
			if c.status != 101 && res.Header.Get("X-Culvert-Error") == "" {
				t.Error("no X-Culvert-Error")
			}
		})
	}
	t.Run("what is known before the upgrade is an HTTP status", func(t *testing.T) {
		b := newBed(t, upTo(1), nil)
		for code, want := range map[wire.Code]int{
			wire.CodePermissionDenied: 403, wire.CodeConnectionRefused: 502, wire.CodeUnavailable: 503, wire.CodeDeadlineExceeded: 504, wire.CodeTooManyRequests: 429,
		} {
			b.refuse(&fault.Error{Hop: wire.HopHub, Op: "open", Code: code})
			if _, res, err := b.dial(path, nil); res == nil || res.StatusCode != want {
				t.Errorf("%v: %v, %v", code, res, err)
			}
		}
		b.refuse(&fault.Error{Hop: wire.HopTarget, Op: "dial", Code: wire.CodeNotFound})
		if _, res, err := b.dial(path, nil); res == nil || res.StatusCode != 502 {
			t.Errorf("no such name: %v, %v", res, err)
		}
	})
	t.Run("a plain request opens nothing", func(t *testing.T) {
		before := b.sessions()
		res, err := b.server.Client().Get(b.server.URL + path)
		ok(t, err)
		defer res.Body.Close()
		if res.StatusCode != 400 || b.sessions() != before {
			t.Errorf("%d, %d sessions", res.StatusCode, b.sessions()-before)
		}
	})
}
