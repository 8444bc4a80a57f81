package https_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// pipeListener accepts in-memory connections, so that time can be faked.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	l.conns <- far
	return near, nil
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
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

// TestIdle runs hub, agent and API server under a fake clock.
func TestIdle(t *testing.T) {
	const idle = 25 * time.Hour
	kube := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, "first\n")
			control.Flush()
			time.Sleep(idle)
			fmt.Fprint(w, "last\n")
			return
		}
		conn, rw, err := control.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, switched("websocket"))
		line, err := rw.ReadString('\n')
		if err != nil {
			t.Errorf("read after idling: %v", err)
		}
		io.WriteString(conn, "re: "+line)
	})
	run := func(t *testing.T, test func(t *testing.T, conn net.Conn, r *bufio.Reader)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			target, hub := newPipeListener(), newPipeListener()
			targetServer := &http.Server{Handler: kube}
			agent, err := upstream.New(upstream.Config{
				Kubernetes: &rest.Config{Host: "http://kubernetes", Dial: target.dial},
				Logger:     slog.New(slog.DiscardHandler),
			})
			ok(t, err)
			mapper, err := identity.NewMapper(identity.Config{})
			ok(t, err)
			front, err := https.New(https.Config{
				Dial: func(_ context.Context, _ string, target wire.Target) (net.Conn, error) {
					near, far := net.Pipe()
					agent.Serve(far, target)
					return near, nil
				},
				Identify: identifiedBy(authenticate), Map: mapper.Map, Logger: slog.New(slog.DiscardHandler),
				Policy: rules(t, "rules: [{name: services, effect: allow, services: [{namespace: \"*\", name: \"*\"}]}]"),
			})
			ok(t, err)
			hubServer := front.Server()
			var servers sync.WaitGroup
			servers.Go(func() { targetServer.Serve(target) })
			servers.Go(func() { hubServer.Serve(hub) })
			conn, err := hub.dial(t.Context(), "", "")
			ok(t, err)

			test(t, conn, bufio.NewReader(conn))

			conn.Close()
			hubServer.Close()
			front.Close()
			ok(t, agent.Close(t.Context()))
			targetServer.Close()
			servers.Wait()
		})
	}
	t.Run("D11: a watch without an event for 25 hours is not cut", func(t *testing.T) {
		run(t, func(t *testing.T, conn net.Conn, r *bufio.Reader) {
			t.Helper()
			_, err := io.WriteString(conn, head("GET /edge-1/api/v1/pods?watch=1"))
			ok(t, err)
			res := readResponse(t, r)
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			if string(body) != "first\nlast\n" {
				t.Errorf("got %q", body)
			}
		})
	})
	t.Run("D11: an upgraded stream that is idle for 25 hours is not cut", func(t *testing.T) {
		run(t, func(t *testing.T, conn net.Conn, r *bufio.Reader) {
			t.Helper()
			_, err := io.WriteString(conn, head("GET /edge-1/exec", "Connection: Upgrade", "Upgrade: websocket"))
			ok(t, err)
			readResponse(t, r)
			time.Sleep(idle)
			_, err = io.WriteString(conn, "still here\n")
			ok(t, err)
			line, err := r.ReadString('\n')
			ok(t, err)
			if line != "re: still here\n" {
				t.Errorf("got %q", line)
			}
		})
	})
}
