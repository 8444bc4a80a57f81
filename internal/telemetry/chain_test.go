package telemetry_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// accepted hands sessions to a server of HTTP.
type accepted struct {
	sessions chan net.Conn
	done     chan struct{}
}

func (a accepted) Accept() (net.Conn, error) {
	select {
	case s := <-a.sessions:
		return s, nil
	case <-a.done:
		return nil, net.ErrClosed
	}
}

func (a accepted) Close() error { close(a.done); return nil }
func (accepted) Addr() net.Addr { return mux.Addr{} }

// TestTunnelTrace sends a request over a hub, a session of a link, an agent and an
// API server, and holds the trace against the one that the documentation shows.
func TestTunnelTrace(t *testing.T) {
	c := newCollector(t)
	hubTracer, closeHub := c.tracer(telemetry.RoleHub, nil)
	agentTracer, closeAgent := c.tracer(telemetry.RoleAgent, nil)
	hub, agent := telemetry.Observer{Tracer: hubTracer}, telemetry.Observer{Tracer: agentTracer}
	api, parents := upstream(t)

	sessions := accepted{make(chan net.Conn), make(chan struct{})}
	p := muxtest.New(t, func(_, a *mux.Config) {
		a.Handler = func(ctx context.Context, in *mux.Incoming) {
			_, open := agent.StartOpen(ctx, telemetry.OpenStart{Target: in.Target(), RequestID: in.RequestID(), Trace: in.Trace()})
			s, err := in.Accept()
			open.End(err)
			if err == nil {
				sessions.sessions <- s
			}
		}
	})
	toAPI := &http.Transport{}
	handler, closeProxy := relaying(agent, wire.HopAgent, "", wire.KubernetesAPI(), toAPI, strings.TrimPrefix(api, "http://"))
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(sessions) }()

	toAgent := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		about := telemetry.OpenStart{Cluster: "edge", Target: wire.KubernetesAPI(), RequestID: "id-1"}
		ctx, open := hub.StartOpen(ctx, about)
		s, err := p.Dialler.Open(ctx, mux.Request{Target: about.Target, RequestID: about.RequestID, Trace: telemetry.TraceParent(ctx)})
		open.End(err)
		return s, err
	}}
	front, closeFront := relaying(hub, wire.HopHub, "edge", wire.KubernetesAPI(), toAgent, "edge")
	web := httptest.NewServer(front)
	for range 2 {
		if status := ask(t, web.URL+"/api/v1/pods", "Traceparent", clientParent); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	web.Close()
	closeFront()
	toAgent.CloseIdleConnections()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	closeProxy()
	toAPI.CloseIdleConnections()
	p.Stop()
	closeHub()
	closeAgent()

	t.Run("N11: the trace of a request on a new session is the one that the documentation shows", func(t *testing.T) {
		got := tree(c.all())
		_, shown, _ := strings.Cut(documentation(t), "A request of `kubectl` on a new session:\n\n```text\n")
		shown, _, _ = strings.Cut(shown, "```")
		// The second request has no open.
		second := "culvert-hub server GET kubernetes\n  culvert-hub client GET\n    culvert-agent server GET kubernetes\n      culvert-agent client GET\n"
		if want := shown + second; squeeze(got) != squeeze(want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		known(t, c.all())
	})
	t.Run("N11: each request tells the API server of its own span, also on a session that it shares", func(t *testing.T) {
		if got := parents(); len(got) != 2 || got[0] == got[1] || !strings.HasPrefix(got[1], "00-"+clientTrace) {
			t.Errorf("got %v", got)
		}
	})
}

// squeeze keeps the indentation and makes columns a space apart.
func squeeze(tree string) string {
	var out strings.Builder
	for line := range strings.Lines(tree) {
		text := strings.TrimLeft(line, " ")
		out.WriteString(line[:len(line)-len(text)])
		out.WriteString(strings.Join(strings.Fields(text), " "))
		out.WriteByte('\n')
	}
	return out.String()
}
