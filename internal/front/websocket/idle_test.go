package websocket_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/internal/front/websocket"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/policy"
)

// pipeListener accepts one in-memory connection, so that time can be faked.
type pipeListener struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// idle is several pings.
const idle = 10 * websocket.DefaultPing

// inMemory runs a client, the front end and a target under a fake clock.
func inMemory(t *testing.T, serve func(*mux.Session), client func(*testing.T, *gorilla.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, pair: muxtest.New(t, func(_, acceptor *mux.Config) {
			acceptor.Handler = func(_ context.Context, in *mux.Incoming) {
				if session, err := in.Accept(); err == nil {
					serve(session)
					session.Close()
				}
			}
		})}
		ports, err := policy.ParsePorts([]string{"consoles"})
		ok(t, err)
		h, err := websocket.New(websocket.Config{Sessions: b, Identify: identify, Ports: ports, IdleTimeout: idle, Logger: slog.New(slog.DiscardHandler)})
		ok(t, err)
		l := &pipeListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
		server := h.Server()
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		near, far := net.Pipe()
		l.conn <- far
		dialer := gorilla.Dialer{
			Subprotocols:   []string{"binary"},
			NetDialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		}
		conn, res, err := dialer.Dial("ws://hub"+path, http.Header{"Authorization": {"Bearer " + token}})
		ok(t, err)
		ok(t, res.Body.Close())

		client(t, conn)

		conn.Close()
		b.pair.Stop()
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func discard(session *mux.Session) { _, _ = io.Copy(io.Discard, session) }

func TestSilence(t *testing.T) {
	t.Run("pings come, and a client that answers none is cut", func(t *testing.T) {
		ended := make(chan struct{})
		inMemory(t, func(session *mux.Session) { discard(session); close(ended) }, func(t *testing.T, conn *gorilla.Conn) {
			t.Helper()
			start, pings := time.Now(), 0
			conn.SetPingHandler(func(string) error { pings++; return nil })
			if text, code := read(conn); code != gorilla.CloseAbnormalClosure {
				t.Errorf("got %q, %d", text, code)
			}
			<-ended
			if pings != 3 || time.Since(start) != 4*websocket.DefaultPing {
				t.Errorf("%d pings in %v", pings, time.Since(start))
			}
		})
	})
	t.Run("a client that answers stays", func(t *testing.T) {
		inMemory(t, func(session *mux.Session) {
			if _, err := io.ReadFull(session, make([]byte, 1)); err == nil {
				_, _ = io.WriteString(session, "echo x")
			}
		}, func(t *testing.T, conn *gorilla.Conn) {
			t.Helper()
			answer, pings := conn.PingHandler(), 0
			conn.SetPingHandler(func(data string) error {
				if pings++; pings == 8 { // longer than three of them
					ok(t, conn.WriteMessage(gorilla.BinaryMessage, []byte("x")))
				}
				return answer(data)
			})
			if text, code := read(conn); text != "echo x" || code != gorilla.CloseNormalClosure {
				t.Errorf("got %q, %d", text, code)
			}
		})
	})
	t.Run("an idle session is cut with 1008, and pings are not traffic", func(t *testing.T) {
		inMemory(t, discard, func(t *testing.T, conn *gorilla.Conn) {
			t.Helper()
			start := time.Now()
			_, code := read(conn)
			if took := time.Since(start); code != gorilla.ClosePolicyViolation || took < idle || took > idle*9/8 {
				t.Errorf("code %d after %v", code, took)
			}
		})
	})
}
