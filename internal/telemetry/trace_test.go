package telemetry_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	clientTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan   = "00f067aa0ba902b7"
	clientParent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// relaying is one HTTP hop that sends everything on to host, as the hub and the
// agent do it, and what ends it.
func relaying(o telemetry.Observer, at wire.Hop, cluster string, target wire.Target, inner http.RoundTripper, host string) (http.Handler, func()) {
	log := slog.New(slog.DiscardHandler)
	proxy := relay.New(relay.Config{
		Explain: func(err error) *fault.Error {
			return &fault.Error{Hop: at + 1, Op: "send", Code: wire.CodeConnectionRefused, Err: err}
		},
		Far: at + 1, Logger: log,
	})
	transport := o.Transport(inner)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, r := relay.Begin(w, r)
		r = answer.WithRequestID(r)
		seen, r := o.Begin(r, x)
		defer seen.End()
		x.Guard(r, at, log, func() {
			seen.Route(cluster, target)
			seen.User("alice")
			if r.Header.Get("Authorization") == "" {
				x.Answer(r, &fault.Error{Hop: at, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: errors.New("no credential")})
				return
			}
			proxy.Serve(x, r, relay.Leg{Transport: transport, Scheme: "http", Host: host, Path: r.URL.EscapedPath()})
		})
	}), proxy.Close
}

// hop starts a hop with a port, and returns its URL and what ends it after its last
// request.
func hop(t *testing.T, o telemetry.Observer, at wire.Hop, cluster string, target wire.Target, next string) (url string, stop func()) {
	t.Helper()
	inner := &http.Transport{}
	handler, closeProxy := relaying(o, at, cluster, target, inner, strings.TrimPrefix(next, "http://"))
	server := httptest.NewServer(handler)
	stop = sync.OnceFunc(func() {
		server.Close()
		closeProxy()
		inner.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return server.URL, stop
}

// upstream is an API server that tells with which traceparent it was asked.
func upstream(t *testing.T) (url string, parents func() []string) {
	t.Helper()
	asked := make(chan string, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- strings.Join(r.Header["Traceparent"], "|")
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, "answer")
	}))
	t.Cleanup(server.Close)
	return server.URL, func() (out []string) {
		for len(asked) > 0 {
			out = append(out, <-asked)
		}
		return out
	}
}

func ask(t *testing.T, url string, header ...string) (status int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer s3cret")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return res.StatusCode
}

// chain is a hub and an agent before an API server.
func chain(t *testing.T, c *spans, sampling *float64) (hubURL string, parents func() []string, flush func()) {
	t.Helper()
	hub, closeHub := c.tracer(telemetry.RoleHub, sampling)
	agent, closeAgent := c.tracer(telemetry.RoleAgent, nil)
	api, parents := upstream(t)
	at, stopAgent := hop(t, telemetry.Observer{Tracer: agent}, wire.HopAgent, "", wire.KubernetesAPI(), api)
	hubURL, stopHub := hop(t, telemetry.Observer{Tracer: hub}, wire.HopHub, "edge", wire.KubernetesAPI(), at)
	return hubURL, parents, func() {
		stopHub()
		stopAgent()
		closeHub()
		closeAgent()
	}
}

func TestTrace(t *testing.T) {
	t.Run("N11: a request is one trace over the hub and the agent that begins at the client and goes on to the API server", func(t *testing.T) {
		c := newCollector(t)
		url, parents, flush := chain(t, c, nil)
		if status := ask(t, url+"/api/v1/pods?token=s3cret", "Traceparent", clientParent, "X-Request-Id", "id-1"); status != 200 {
			t.Fatalf("status %d", status)
		}
		flush()
		all := c.all()
		want := "culvert-hub server GET kubernetes\n  culvert-hub client GET\n    culvert-agent server GET kubernetes\n      culvert-agent client GET\n"
		if got := tree(all); got != want || len(all) != 4 {
			t.Fatalf("got\n%s", got)
		}
		if all[0].parent() != clientSpan {
			t.Errorf("the hub's parent is %s", all[0].parent())
		}
		for _, s := range all {
			if s.trace() != clientTrace {
				t.Errorf("%s is of trace %s", s.GetName(), s.trace())
			}
			if s.attrs["http.response.status_code"] != "200" || s.attrs["http.request.method"] != "GET" {
				t.Errorf("%s: %v", s.GetName(), s.attrs)
			}
		}
		hub := all[0].attrs
		if hub["culvert.cluster"] != "edge" || hub["culvert.target"] != "kubernetes" || hub["culvert.code"] != "ok" ||
			hub["url.path"] != "/api/v1/pods" || hub["culvert.bytes.sent"] != "6" || hub["culvert.request_id"] == "" {
			t.Errorf("the hub's span: %v", hub)
		}
		if got := parents(); len(got) != 1 || got[0] != "00-"+clientTrace+"-"+all[3].id()+"-01" {
			t.Errorf("the API server was asked with %v", got)
		}
		if c.path != "/v1/traces" {
			t.Errorf("exported to %s", c.path)
		}
		known(t, all)
		if sent := c.sent(); strings.Contains(sent, "s3cret") || strings.Contains(sent, "alice") {
			t.Error("D7: an export has a credential or an identity in it")
		}
	})
	t.Run("N11: without a client's trace the hub begins one", func(t *testing.T) {
		c := newCollector(t)
		url, _, flush := chain(t, c, nil)
		for _, malformed := range []string{"", "00-0-0-01", strings.Replace(clientParent, clientTrace, strings.Repeat("0", 32), 1), "ff" + clientParent[2:], strings.ToUpper(clientParent)} {
			ask(t, url+"/", "Traceparent", malformed)
		}
		flush()
		roots := 0
		for _, s := range c.all() {
			if s.trace() == clientTrace {
				t.Errorf("%s took a malformed traceparent over", s.GetName())
			}
			if s.parent() == "" {
				roots++
			}
		}
		if roots != 5 {
			t.Errorf("%d traces", roots)
		}
	})
	t.Run("N11: who decides about sampling is the client, else the hub, and the decision goes on", func(t *testing.T) {
		c := newCollector(t)
		none := 0.0
		url, parents, flush := chain(t, c, &none)
		ask(t, url+"/")
		ask(t, url+"/", "Traceparent", clientParent[:53]+"00")
		ask(t, url+"/", "Traceparent", clientParent)
		flush()
		got := parents()
		if len(got) != 3 || !strings.HasSuffix(got[0], "-00") || !strings.HasSuffix(got[1], "-00") || !strings.HasSuffix(got[2], "-01") {
			t.Errorf("the API server was asked with %v", got)
		}
		if all := c.all(); len(all) != 4 {
			t.Errorf("%d spans where one of three requests is sampled:\n%s", len(all), tree(all))
		}
	})
	t.Run("N10: a failure is in the span of each hop that it passes, with code and hop", func(t *testing.T) {
		c := newCollector(t)
		hub, flush := c.tracer(telemetry.RoleHub, nil)
		api, _ := upstream(t)
		web := wire.Service("default", "web", "80", "http")
		at, stop := hop(t, telemetry.Observer{Tracer: hub}, wire.HopHub, "edge", web, api)
		if status := ask(t, at+"/", "Authorization", ""); status != 401 {
			t.Errorf("status %d", status)
		}
		if status := ask(t, at+"/broken"); status != 500 {
			t.Errorf("status %d", status)
		}
		away, stopAway := hop(t, telemetry.Observer{Tracer: hub}, wire.HopHub, "edge", web, "http://127.0.0.1:1")
		if status := ask(t, away+"/"); status != 502 {
			t.Errorf("status %d", status)
		}
		stop()
		stopAway()
		flush()
		var seen []string
		for _, s := range c.all() {
			if s.GetKind() == 2 { // server
				seen = append(seen, strings.Join([]string{s.GetName(), s.attrs["http.response.status_code"], s.attrs["culvert.code"], s.attrs["culvert.hop"], s.GetStatus().GetCode().String()}, " "))
			}
		}
		want := []string{
			"GET service 401 unauthenticated hub STATUS_CODE_UNSET", "GET service 500 ok  STATUS_CODE_ERROR",
			"GET service 502 connection-refused peer hub STATUS_CODE_ERROR",
		}
		if strings.Join(seen, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s", strings.Join(seen, "\n"))
		}
	})
}

func TestSessionTrace(t *testing.T) {
	t.Run("N11: a raw session has a span at both hops, and its opening is a part of it", func(t *testing.T) {
		c := newCollector(t)
		hubTracer, closeHub := c.tracer(telemetry.RoleHub, nil)
		agentTracer, closeAgent := c.tracer(telemetry.RoleAgent, nil)
		hub, agent := telemetry.Observer{Tracer: hubTracer}, telemetry.Observer{Tracer: agentTracer}
		about := telemetry.OpenStart{Cluster: "edge", Target: wire.Address("db", 5432), RequestID: "id-\xff"}

		ctx, session := hub.StartSession(t.Context(), telemetry.SessionStart{OpenStart: about})
		ctx, open := hub.StartOpen(ctx, about)
		parent := telemetry.TraceParent(ctx)

		there := telemetry.OpenStart{Target: about.Target, RequestID: about.RequestID, Trace: parent}
		theirs, served := agent.StartSession(context.Background(), telemetry.SessionStart{OpenStart: there})
		there.Trace = ""
		theirs, accepted := agent.StartOpen(theirs, there)
		if telemetry.TraceID(theirs) != telemetry.TraceID(ctx) {
			t.Errorf("%s at the agent, %s at the hub", telemetry.TraceID(theirs), telemetry.TraceID(ctx))
		}
		accepted.End(nil)
		open.End(nil)
		lost := &fault.Error{Hop: wire.HopLink, Op: "read", Code: wire.CodeLinkLost}
		served.End(telemetry.SessionEnd{Received: 3, Sent: 4})
		session.End(telemetry.SessionEnd{Err: lost, Received: 4, Sent: 3})
		closeHub()
		closeAgent()
		all := c.all()
		want := "culvert-hub client session tcp\n  culvert-hub client open tcp\n    culvert-agent server session tcp\n      culvert-agent client open tcp\n"
		if got := tree(all); got != want {
			t.Fatalf("got\n%s", got)
		}
		if a := all[0].attrs; a["culvert.code"] != "link-lost" || a["culvert.hop"] != "tunnel" || a["culvert.bytes.received"] != "4" || a["culvert.target"] != "tcp db:5432" || a["culvert.request_id"] != "id-\uFFFD" {
			t.Errorf("got %v", a)
		}
		known(t, all)
	})
	t.Run("N11: without a tracer a client's trace still travels with the open", func(t *testing.T) {
		var got string
		api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var o telemetry.Observer
			_, r = o.Begin(r, nil)
			ctx, open := o.StartOpen(r.Context(), telemetry.OpenStart{Target: wire.KubernetesAPI()})
			got = telemetry.TraceParent(ctx)
			open.End(nil)
		}))
		defer api.Close()
		ask(t, api.URL, "Traceparent", clientParent)
		if got != clientParent {
			t.Errorf("got %q", got)
		}
		ask(t, api.URL)
		if got != "" {
			t.Errorf("got %q of nobody", got)
		}
	})
}

// FuzzTrace gives what a peer may send with an open: it becomes a traceparent in
// the one form, or nothing.
func FuzzTrace(f *testing.F) {
	for _, seed := range []string{
		clientParent, clientParent[:53] + "ff", "01" + clientParent[2:] + "-more", "ff" + clientParent[2:], "00-" + strings.Repeat("0", 32) + "-" + clientSpan + "-01",
		"", "-", "00-\xff", clientParent + "\r\nX: y", strings.ToUpper(clientParent),
	} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`)
	f.Fuzz(func(t *testing.T, sent string) {
		ctx, open := telemetry.Observer{}.StartOpen(t.Context(), telemetry.OpenStart{Trace: sent})
		open.End(nil)
		got := telemetry.TraceParent(ctx)
		switch {
		case got == "":
			if telemetry.TraceID(ctx) != "" {
				t.Errorf("%q has a trace id and no parent", sent)
			}
		case !form.MatchString(got), !strings.Contains(sent, got[3:52]), telemetry.TraceID(ctx) != got[3:35]:
			t.Errorf("%q became %q", sent, got)
		}
	})
}
