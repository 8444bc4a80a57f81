package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// scraped starts the metrics of cfg and returns them with a URL.
func scraped(t *testing.T, cfg telemetry.Config) (*telemetry.Telemetry, string) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := tel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Patient()
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-served, tel.Close()); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return tel, "http://" + server.Addr().String() + "/metrics"
}

func has(t *testing.T, url string, lines ...string) {
	t.Helper()
	_, body := get(t, url)
	for _, want := range lines {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

// finished is an exchange that is over.
type finished struct {
	status   int
	fault    *fault.Error
	header   http.Header
	panicked bool
}

func (f finished) Header() http.Header    { return f.header }
func (f finished) Status() int            { return f.status }
func (finished) Received() int64          { return 10 }
func (finished) Sent() int64              { return 20 }
func (finished) FirstByte() time.Duration { return 3 * time.Millisecond }
func (f finished) Fault() *fault.Error    { return f.fault }
func (f finished) Panicked() bool         { return f.panicked }

func request(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://hub/edge/api", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestMetrics(t *testing.T) {
	edge := func(name string) bool { return name == "edge" }
	t.Run("K10: requests are counted by cluster, kind, status, code and hop, and timed to the first byte", func(t *testing.T) {
		tel, url := scraped(t, telemetry.Config{Known: edge})
		o := telemetry.Observer{Metrics: tel.Metrics()}
		for _, f := range []finished{
			{status: 200},
			{status: 200},
			{status: 503, fault: &fault.Error{Hop: wire.HopHub, Code: wire.CodeUnavailable}},
			{status: 403, header: http.Header{"X-Culvert-Error": {"permission-denied"}}},
			{status: 502, header: http.Header{"X-Culvert-Error": {"invented"}}},
			{status: 500, fault: &fault.Error{Hop: wire.HopHub, Code: wire.CodeInternal}, panicked: true},
		} {
			seen, _ := o.Begin(request(t), f)
			seen.Route("edge", wire.KubernetesAPI())
			seen.End()
		}
		open, _ := o.Begin(request(t), finished{})
		has(t, url,
			`culvert_requests_total{cluster="edge",code="ok",hop="",kind="kubernetes",role="hub",status="200"} 2`,
			`culvert_requests_total{cluster="edge",code="unavailable",hop="hub",kind="kubernetes",role="hub",status="503"} 1`,
			`culvert_requests_total{cluster="edge",code="permission-denied",hop="agent",kind="kubernetes",role="hub",status="403"} 1`,
			`culvert_requests_total{cluster="edge",code="internal-error",hop="agent",kind="kubernetes",role="hub",status="502"} 1`,
			`culvert_request_first_byte_seconds_bucket{kind="kubernetes",role="hub",le="0.0025"} 0`,
			`culvert_request_first_byte_seconds_bucket{kind="kubernetes",role="hub",le="0.005"} 6`,
			`culvert_requests_active{role="hub"} 1`,
			`culvert_panics_total{room="request"} 1`,
		)
		open.End()
		has(t, url, `culvert_requests_active{role="hub"} 0`, `culvert_requests_total{cluster="",code="ok",hop="",kind="none",role="hub",status="none"} 1`)
	})
	t.Run("K10: opens, dials and sessions are counted with the reason of their failure", func(t *testing.T) {
		tel, url := scraped(t, telemetry.Config{Role: telemetry.RoleAgent, Known: edge})
		o := telemetry.Observer{Metrics: tel.Metrics()}
		refused := &fault.Error{Hop: wire.HopTarget, Code: wire.CodeConnectionRefused}
		for _, err := range []error{nil, refused, fmt.Errorf("wrapped: %w", refused), errors.New("no fault")} {
			_, open := o.StartOpen(t.Context(), telemetry.OpenStart{Cluster: "edge", Target: wire.Address("db", 5432)})
			open.End(err)
			tel.Metrics().Dialled(telemetry.KindService, err, 4*time.Millisecond)
		}
		_, session := o.StartSession(t.Context(), telemetry.SessionStart{OpenStart: telemetry.OpenStart{Target: wire.Address("db", 5432)}})
		session.End(telemetry.SessionEnd{})
		has(t, url,
			`culvert_opens_total{cluster="edge",code="ok",hop="",kind="tcp",role="agent"} 1`,
			`culvert_opens_total{cluster="edge",code="connection-refused",hop="target",kind="tcp",role="agent"} 2`,
			`culvert_opens_total{cluster="edge",code="internal-error",hop="",kind="tcp",role="agent"} 1`,
			`culvert_open_duration_seconds_count{kind="tcp",role="agent"} 4`,
			`culvert_dial_duration_seconds_bucket{code="connection-refused",kind="service",le="0.005"} 2`,
			`culvert_dial_duration_seconds_bucket{code="connection-refused",kind="service",le="0.0025"} 0`,
			`culvert_raw_sessions_total{cluster="",code="ok",hop="",kind="tcp",role="agent"} 1`,
		)
	})
	t.Run("K10: what a link, a connection or a context says is a code, too", func(t *testing.T) {
		tel, url := scraped(t, telemetry.Config{})
		o := telemetry.Observer{Metrics: tel.Metrics()}
		for _, err := range []error{
			&mux.Error{Code: wire.CodeLinkLost, Hop: wire.HopLink}, errors.Join(nil, &net.OpError{Op: "read", Err: syscall.ECONNRESET}),
			context.Canceled, fmt.Errorf("dial: %w", context.DeadlineExceeded),
		} {
			_, session := o.StartSession(t.Context(), telemetry.SessionStart{OpenStart: telemetry.OpenStart{Target: wire.Address("db", 1)}})
			session.End(telemetry.SessionEnd{Err: err})
		}
		for code, hop := range map[string]string{"link-lost": "tunnel", "connection-reset": "", "canceled": "", "deadline-exceeded": ""} {
			has(t, url, fmt.Sprintf(`culvert_raw_sessions_total{cluster="",code=%q,hop=%q,kind="tcp",role="hub"} 1`, code, hop))
		}
	})
	t.Run("K10: authentication, policy, limits, audit and lost spans are counted", func(t *testing.T) {
		dropped := uint64(7)
		tel, url := scraped(t, telemetry.Config{
			AuditDropped: func() uint64 { return dropped }, AuditFailed: func() uint64 { return 8 }, SpansLost: (*telemetry.Tracer)(nil).Lost,
			Budget: mux.NewBudget(1 << 20),
		})
		m := tel.Metrics()
		m.Authenticated("oidc", telemetry.Allowed)
		m.Authenticated("token-review", telemetry.Failed)
		m.Authenticated("", telemetry.Refused)
		m.Decided(telemetry.Refused)
		m.Limited("user")
		has(t, url,
			`culvert_authentications_total{method="oidc",outcome="allowed"} 1`, `culvert_authentications_total{method="token-review",outcome="failed"} 1`,
			`culvert_authentications_total{method="none",outcome="refused"} 1`,
			`culvert_policy_decisions_total{outcome="refused",role="hub"} 1`, `culvert_limited_total{scope="user"} 1`,
			`culvert_audit_dropped_total 7`, `culvert_audit_failures_total 8`, `culvert_spans_lost_total 0`,
			`culvert_memory_limit_bytes 1.048576e+06`, `culvert_memory_committed_bytes 0`, `culvert_memory_queued_bytes 0`,
		)
	})
}

func TestCardinality(t *testing.T) {
	series := func(t *testing.T, url, metric string) int {
		t.Helper()
		_, body := get(t, url)
		return strings.Count(body, "\n"+metric+"{")
	}
	t.Run("K10: ten thousand names that no cluster has make one series", func(t *testing.T) {
		asked := 0
		tel, url := scraped(t, telemetry.Config{Known: func(name string) bool { asked++; return name == "edge" }})
		o := telemetry.Observer{Metrics: tel.Metrics()}
		for i := range 10_000 {
			for _, name := range []string{fmt.Sprintf("no-such-%d", i), "edge"} {
				seen, _ := o.Begin(request(t), finished{status: 404, fault: &fault.Error{Hop: wire.HopHub, Code: wire.CodeNotFound}})
				seen.Route(name, wire.KubernetesAPI())
				seen.End()
			}
			_, open := o.StartOpen(t.Context(), telemetry.OpenStart{Cluster: fmt.Sprintf("no-such-%d", i), Target: wire.KubernetesAPI()})
			open.End(nil)
		}
		has(t, url,
			`culvert_requests_total{cluster="_unknown",code="not-found",hop="hub",kind="kubernetes",role="hub",status="404"} 10000`,
			`culvert_requests_total{cluster="edge",code="not-found",hop="hub",kind="kubernetes",role="hub",status="404"} 10000`,
			`culvert_opens_total{cluster="_unknown",code="ok",hop="",kind="kubernetes",role="hub"} 10000`,
		)
		if a, b := series(t, url, "culvert_requests_total"), series(t, url, "culvert_opens_total"); a != 2 || b != 1 {
			t.Errorf("%d and %d series", a, b)
		}
		if asked != 20_001 {
			t.Errorf("a known name was asked for again: %d times asked", asked)
		}
	})
	t.Run("K10: clusters beyond the bound, statuses and codes that somebody invents share series", func(t *testing.T) {
		tel, url := scraped(t, telemetry.Config{Known: func(string) bool { return true }})
		o := telemetry.Observer{Metrics: tel.Metrics()}
		end := func(cluster string, f finished) {
			seen, _ := o.Begin(request(t), f)
			seen.Route(cluster, wire.KubernetesAPI())
			seen.End()
		}
		for i := range telemetry.MaxClusters + 100 {
			end(fmt.Sprintf("cluster-%d", i), finished{status: 200})
		}
		has(t, url, `culvert_requests_total{cluster="_other",code="ok",hop="",kind="kubernetes",role="hub",status="200"} 100`)
		if n := series(t, url, "culvert_requests_total"); n != telemetry.MaxClusters+1 {
			t.Errorf("%d series", n)
		}
		for status := range 1000 {
			end("cluster-1", finished{status: status, header: http.Header{"X-Culvert-Error": {fmt.Sprint("code-", status)}}})
		}
		for code := range wire.Code(300) {
			end("cluster-1", finished{status: 500, fault: &fault.Error{Hop: wire.Hop(code), Code: code}})
		}
		if n := series(t, url, "culvert_requests_total"); n > telemetry.MaxClusters+100 {
			t.Errorf("%d series", n-telemetry.MaxClusters)
		}
	})
}

func TestLinkMetrics(t *testing.T) {
	links := telemetry.NewLinks()
	_, url := scraped(t, telemetry.Config{Links: links})
	p := muxtest.New(t)
	remove := links.Add(telemetry.LinkInfo{Cluster: "edge"}, p.Dialler)
	ours, theirs := p.Open(t)
	exchange(t, ours, theirs, "question")
	exchange(t, theirs, ours, "answer")
	t.Run("K10: links, sessions and bytes of each cluster are metrics", func(t *testing.T) {
		has(t, url,
			`culvert_links{cluster="edge"} 1`, `culvert_sessions{cluster="edge"} 1`, `culvert_sessions_pending{cluster="edge"} 0`, `culvert_sessions_stalled{cluster="edge"} 0`,
			`culvert_tunnel_bytes_total{cluster="edge",direction="sent"} 8`, `culvert_tunnel_bytes_total{cluster="edge",direction="received"} 6`,
			`culvert_credit_stall_seconds_total{cluster="edge"} 0`, `culvert_send_queue_bytes{cluster="edge"} 0`,
		)
		if _, body := get(t, url); !strings.Contains(body, `culvert_link_rtt_seconds{cluster="edge"} `) {
			t.Errorf("no round trip in\n%s", body)
		}
	})
	t.Run("K10: a counter does not fall when a link ends and another one comes", func(t *testing.T) {
		p.Stop()
		has(t, url, `culvert_links{cluster="edge"} 0`, `culvert_tunnel_bytes_total{cluster="edge",direction="sent"} 8`)
		remove() // it is out already
		q := muxtest.New(t)
		links.Follow(telemetry.LinkInfo{Cluster: "edge"}, func() *mux.Link { return q.Dialler })
		ours, theirs := q.Open(t)
		exchange(t, ours, theirs, "more")
		has(t, url, `culvert_links{cluster="edge"} 1`, `culvert_tunnel_bytes_total{cluster="edge",direction="sent"} 12`)
	})
}

func exchange(t *testing.T, from, to *mux.Session, what string) {
	t.Helper()
	if _, err := from.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := to.Read(got); err != nil || string(got) != what {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestNothingConfigured(t *testing.T) {
	var o telemetry.Observer
	t.Run("K10: without metrics, traces and live view a request costs no memory", func(t *testing.T) {
		r, x := request(t), &finished{status: 200}
		cost := testing.AllocsPerRun(1000, func() {
			seen, r := o.Begin(r, x)
			seen.Route("edge", wire.KubernetesAPI())
			seen.User("alice")
			_, open := o.StartOpen(r.Context(), telemetry.OpenStart{})
			open.End(nil)
			_, session := o.StartSession(r.Context(), telemetry.SessionStart{})
			session.End(telemetry.SessionEnd{})
			o.Metrics.Authenticated("token", telemetry.Allowed)
			o.Metrics.Decided(telemetry.Allowed)
			seen.End()
		})
		if cost != 0 {
			t.Errorf("%v allocations", cost)
		}
		if inner := http.DefaultTransport; o.Transport(inner) != inner {
			t.Error("the transport was wrapped")
		}
	})
	t.Run("K10: what is not configured can be used all the same", func(t *testing.T) {
		var m *telemetry.Metrics
		m.Dialled(telemetry.KindService, nil, 0)
		m.Limited("user")
		m.Panicked("request")
		m.Called("Connect", "OK")
		var links *telemetry.Links
		links.Follow(telemetry.LinkInfo{}, nil)
		links.Add(telemetry.LinkInfo{}, nil)()
		if m := (*telemetry.Telemetry)(nil).Metrics(); m != nil {
			t.Error("metrics of nothing")
		}
	})
}
