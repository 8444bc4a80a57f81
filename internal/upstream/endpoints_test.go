package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// apiName is the host of the kubeconfig's server, which no DNS knows.
const apiName = "api.example.invalid"

// endpoint is one API server of several, which can be killed and started again on
// the same port.
type endpoint struct {
	t       *testing.T
	address string
	cert    tls.Certificate
	handler http.Handler

	requests atomic.Int64
	shakes   atomic.Int64 // handshakes that were begun

	mu     sync.Mutex
	server *http.Server
	ended  chan struct{}
}

func newEndpoint(t *testing.T, cert tls.Certificate, handler http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{t: t, address: "127.0.0.1:0", cert: cert}
	e.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			e.requests.Add(1)
		}
		handler(w, r)
	})
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *endpoint) start() {
	e.t.Helper()
	l, err := net.Listen("tcp", e.address)
	ok(e.t, err)
	e.address = l.Addr().String()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = make(chan struct{})
	e.server = &http.Server{Handler: e.handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), TLSConfig: &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			e.shakes.Add(1)
			return &e.cert, nil
		},
	}}
	go serveTLS(e.server, l, e.ended)
}

// serveTLS ends with the server.
func serveTLS(server *http.Server, l net.Listener, ended chan<- struct{}) {
	defer close(ended)
	_ = server.ServeTLS(l, "", "") // it always ends with an error, that it was closed
}

// kill cuts everything and closes the port.
func (e *endpoint) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		_ = e.server.Close() // what is open is lost, as it is to be
		<-e.ended
		e.server = nil
	}
}

// answers tells which endpoint it is, as whom it was asked for, and what the body
// was.
func answers(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the client sees by the answer what came
		fmt.Fprintf(w, "%s|%s|%s|%s", name, r.Host, r.TLS.ServerName, body)
	}
}

// pair starts an agent with two endpoints that have the certificate of apiName.
func pair(t *testing.T, probe upstream.Probe, handler func(name string) http.HandlerFunc, change ...func(*upstream.Config)) (u *upstream.Upstream, one, two *endpoint) {
	t.Helper()
	ca, cert := certificate(t, apiName)
	one, two = newEndpoint(t, cert, handler("one")), newEndpoint(t, cert, handler("two"))
	cfg := upstream.Config{
		Kubernetes:          &rest.Config{Host: "https://" + apiName, BearerToken: "agent", TLSClientConfig: rest.TLSClientConfig{CAData: ca}},
		KubernetesEndpoints: []string{one.address, two.address}, Probe: probe, PassThrough: true,
	}
	for _, f := range change {
		f(&cfg)
	}
	return start(t, cfg), one, two
}

// quickly is a probe of the given kind that is done often.
func quickly(kind upstream.ProbeKind) upstream.Probe {
	return upstream.Probe{Kind: kind, Interval: metav1.Duration{Duration: 100 * time.Millisecond}}
}

func failed(u *upstream.Upstream) []bool {
	state, _ := u.Endpoints()
	var out []bool
	for _, e := range state.Endpoints {
		out = append(out, e.Failed)
	}
	return out
}

// submit sends one request with a body over a session of its own.
func submit(t *testing.T, u *upstream.Upstream, method, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	conn := session(t, u, wire.KubernetesAPI())
	defer conn.Close()
	_, err := fmt.Fprintf(conn, "%s /api HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n%s\r\n%s", method, asAlice, len(body), strings.Join(append(headers, ""), "\r\n"), body)
	ok(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	ok(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	ok(t, err)
	return res, string(text)
}

func TestEndpoints(t *testing.T) {
	t.Run("D12: requests go to every endpoint by the name of the kubeconfig's server", func(t *testing.T) {
		u, one, two := pair(t, upstream.Probe{}, answers)
		for range 10 {
			res, body := ask(t, u, wire.KubernetesAPI(), "/version", asAlice)
			if want := "|" + apiName + "|" + apiName + "|"; res.StatusCode != 200 || !strings.HasSuffix(body, want) {
				t.Fatalf("got %s %q, want %q", res.Status, body, want)
			}
			// It counts until a moment after its answer was read.
			await(t, "nothing is under way", func() bool {
				state, _ := u.Endpoints()
				return !slices.ContainsFunc(state.Endpoints, func(e balance.Status) bool { return e.Outstanding > 0 })
			})
		}
		if a, b := one.requests.Load(), two.requests.Load(); a != 5 || b != 5 {
			t.Errorf("%d and %d requests", a, b)
		}
		if a, b := one.shakes.Load(), two.shakes.Load(); a != 1 || b != 1 {
			t.Errorf("%d and %d connections where one each does", a, b)
		}
	})
	t.Run("D12: watches and upgraded streams count as long as they are open", func(t *testing.T) {
		u, one, two := pair(t, upstream.Probe{}, func(string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Upgrade") != "":
					w.Header().Set("Connection", "Upgrade")
					w.Header().Set("Upgrade", "test")
					w.WriteHeader(101)
					conn, _, err := http.NewResponseController(w).Hijack()
					if err == nil {
						_, _ = io.Copy(conn, conn) // until the client ends it
						conn.Close()
					}
				case r.URL.Query().Has("watch"):
					_, _ = io.WriteString(w, "event\n")
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}
		})
		open := func(request string) net.Conn {
			conn := session(t, u, wire.KubernetesAPI())
			_, err := io.WriteString(conn, request)
			ok(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			ok(t, err)
			if res.StatusCode != 200 && res.StatusCode != 101 {
				t.Fatalf("got %s", res.Status)
			}
			return conn
		}
		outstanding := func() (n []int) {
			state, _ := u.Endpoints()
			for _, e := range state.Endpoints {
				n = append(n, e.Outstanding)
			}
			return n
		}
		watch := open("GET /api?watch=1 HTTP/1.1\r\nHost: x\r\n" + asAlice + "\r\n\r\n")
		exec := open("GET /exec HTTP/1.1\r\nHost: x\r\n" + asAlice + "\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		if a, b := one.requests.Load(), two.requests.Load(); a != 1 || b != 1 || !slices.Equal(outstanding(), []int{1, 1}) {
			t.Fatalf("%d and %d requests, under way %v", a, b, outstanding())
		}
		open("GET /api?watch=2 HTTP/1.1\r\nHost: x\r\n" + asAlice + "\r\n\r\n")
		open("GET /api?watch=3 HTTP/1.1\r\nHost: x\r\n" + asAlice + "\r\n\r\n")
		if !slices.Equal(outstanding(), []int{2, 2}) {
			t.Errorf("under way: %v", outstanding())
		}
		ok(t, errors.Join(watch.Close(), exec.Close()))
		await(t, "both counted no more", func() bool { n := outstanding(); return n[0]+n[1] == 2 })
	})
	t.Run("D12,P20: sessions of TLS to the API server are spread, and count until they are closed", func(t *testing.T) {
		u, one, two := pair(t, upstream.Probe{}, answers)
		seen := map[string]int{}
		var conns []*upstream.Conn
		for range 6 {
			conn, err := u.Dial(t.Context(), wire.KubernetesTLS())
			ok(t, err)
			seen[conn.RemoteAddr().String()]++
			conns = append(conns, conn)
		}
		if seen[one.address] != 3 || seen[two.address] != 3 {
			t.Errorf("got %v", seen)
		}
		for _, conn := range conns {
			ok(t, conn.Close())
		}
		if state, _ := u.Endpoints(); state.Endpoints[0].Outstanding != 0 || state.Endpoints[1].Outstanding != 0 {
			t.Errorf("after all were closed: %+v", state)
		}
		one.kill()
		for range 4 {
			conn, err := u.Dial(t.Context(), wire.KubernetesTLS())
			ok(t, err)
			if got := conn.RemoteAddr().String(); got != two.address {
				t.Errorf("got %s", got)
			}
			ok(t, conn.Close())
		}
		two.kill()
		_, err := u.Dial(t.Context(), wire.KubernetesTLS())
		wantCode(t, err, wire.HopTarget, wire.CodeConnectionRefused)
	})
}

func TestEjection(t *testing.T) {
	slowly := quickly(upstream.ProbeHTTP)
	slowly.Interval.Duration = time.Hour // but for what is asked for
	t.Run("D13: what cannot be connected to is tried elsewhere, whatever the method, and the body is whole", func(t *testing.T) {
		for _, probe := range []upstream.Probe{{}, slowly} {
			u, one, two := pair(t, probe, answers)
			one.kill()
			for _, method := range []string{"GET", "POST", "PATCH", "DELETE"} {
				for range 2 {
					if res, body := submit(t, u, method, "some body"); res.StatusCode != 200 || !strings.HasSuffix(body, "|some body") {
						t.Errorf("%s: got %s %q", method, res.Status, body)
					}
				}
			}
			if n := two.requests.Load(); n != 8 {
				t.Errorf("%d requests at the one that works", n)
			}
			if probe.Kind != "" && !slices.Equal(failed(u), []bool{true, false}) {
				t.Errorf("failed: %v", failed(u))
			}
			one.start()
			if probe.Kind == "" {
				continue
			}
			await(t, "it gets requests again", func() bool { ask(t, u, wire.KubernetesAPI(), "/", asAlice); return one.requests.Load() > 0 })
		}
	})
	t.Run("D13: where none is healthy the answer is 503 at once, with the reason and when to try again", func(t *testing.T) {
		states := make(chan balance.State, 100)
		u, one, two := pair(t, slowly, answers, func(cfg *upstream.Config) { cfg.KubernetesChanged = func(s balance.State) { states <- s } })
		if s := <-states; !s.Ready || upstream.Readiness(s) != (wire.Readiness{Ready: true}) {
			t.Fatalf("at first: %+v", s)
		}
		one.kill()
		two.kill()
		res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice)
		for _, says := range []string{"target: choose an endpoint", "no endpoint of the API server is healthy", one.address + ": ", two.address + ": "} {
			if !strings.Contains(body, says) {
				t.Errorf("%s does not say %q", body, says)
			}
		}
		if res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" || res.Header.Get("X-Culvert-Error") != "unavailable" {
			t.Errorf("got %s %v", res.Status, res.Header)
		}
		_, err := u.Dial(t.Context(), wire.KubernetesTLS())
		wantCode(t, err, wire.HopTarget, wire.CodeUnavailable)
		for s := range states {
			if r := upstream.Readiness(s); !r.Ready {
				if r.Code != wire.CodeUnavailable || !strings.Contains(r.Message, "connection refused") {
					t.Errorf("told %+v", r)
				}
				break
			}
		}
		two.start()
		await(t, "it serves again", func() bool { res, _ := ask(t, u, wire.KubernetesAPI(), "/", asAlice); return res.StatusCode == 200 })
	})
	t.Run("D13: a connection that breaks is made up for where that is safe, and only there", func(t *testing.T) {
		var broken atomic.Int64
		u, one, two := pair(t, upstream.Probe{}, func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if name == "one" {
					broken.Add(1)
					panic(http.ErrAbortHandler)
				}
				answers(name)(w, r)
			}
		})
		for range 6 {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 200 {
				t.Errorf("GET: got %s %s", res.Status, body)
			}
		}
		if broken.Load() == 0 {
			t.Fatal("the one that breaks was never asked")
		}
		lost := 0
		before := one.requests.Load() + two.requests.Load()
		for range 6 {
			if res, _ := submit(t, u, "POST", "x"); res.StatusCode == 502 {
				lost++
			}
			if res, _ := ask(t, u, wire.KubernetesAPI(), "/exec", asAlice, "Connection: Upgrade", "Upgrade: test"); res.StatusCode == 502 {
				lost++
			}
		}
		if n := one.requests.Load() + two.requests.Load() - before; lost == 0 || n != 12 {
			t.Errorf("%d requests were made of 12, %d were lost", n, lost)
		}
	})
	t.Run("D13: a short answer that breaks off is made up for, and a stream passes at once", func(t *testing.T) {
		var broken atomic.Int64
		next := make(chan struct{})
		u, _, _ := pair(t, upstream.Probe{}, func(name string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Query().Has("watch"):
					_, _ = io.WriteString(w, "event\n")
					_ = http.NewResponseController(w).Flush()
					<-next
				case name == "one":
					broken.Add(1)
					w.Header().Set("Content-Length", "10")
					_, _ = io.WriteString(w, "half")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				default:
					_, _ = io.WriteString(w, "ten letter")
				}
			}
		})
		for range 6 {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 200 || body != "ten letter" {
				t.Errorf("got %s %q", res.Status, body)
			}
		}
		if broken.Load() == 0 {
			t.Error("the one that breaks was never asked")
		}
		conn := session(t, u, wire.KubernetesAPI())
		_, err := io.WriteString(conn, "GET /?watch=1 HTTP/1.1\r\nHost: x\r\n"+asAlice+"\r\n\r\n")
		ok(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		ok(t, err)
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if close(next); err != nil || line != "event\n" {
			t.Errorf("got %q, %v", line, err)
		}
	})
	t.Run("D20: what is not verified gets no request, and is refused as that where there is nothing else", func(t *testing.T) {
		_, foreign := certificate(t, apiName)
		var impostor *endpoint
		u, _, two := pair(t, slowly, answers, func(cfg *upstream.Config) {
			impostor = newEndpoint(t, foreign, answers("impostor"))
			cfg.KubernetesEndpoints[0] = impostor.address
		})
		for range 6 {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 200 || !strings.HasPrefix(body, "two|") {
				t.Errorf("got %s %s", res.Status, body)
			}
		}
		if impostor.requests.Load() != 0 || impostor.shakes.Load() == 0 {
			t.Errorf("%d requests and %d handshakes at the impostor", impostor.requests.Load(), impostor.shakes.Load())
		}
		two.kill()
		await(t, "the reason is that of both", func() bool {
			res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice)
			return res.StatusCode == 503 && strings.Contains(body, "certificate") && strings.Contains(body, "connection refused")
		})
		alone, _, _ := pair(t, slowly, answers, func(cfg *upstream.Config) { cfg.KubernetesEndpoints = []string{impostor.address} })
		for range 2 {
			if res, body := ask(t, alone, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 502 || res.Header.Get("X-Culvert-Error") != "tls-failure" || res.Header.Get("Retry-After") != "" {
				t.Errorf("got %s %s", res.Status, body)
			}
		}
	})
	t.Run("D20: a certificate for the endpoint's address, and not for the server's name, does not do", func(t *testing.T) {
		ca, cert := certificate(t, "localhost")
		local := newEndpoint(t, cert, answers("local"))
		_, port, err := net.SplitHostPort(local.address)
		ok(t, err)
		u, _, _ := pair(t, upstream.Probe{}, answers, func(cfg *upstream.Config) {
			cfg.Kubernetes.CAData = ca
			cfg.KubernetesEndpoints = []string{"localhost:" + port}
		})
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 502 || res.Header.Get("X-Culvert-Error") != "tls-failure" || local.requests.Load() != 0 {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
}

func TestEndpointsUnderLoad(t *testing.T) {
	u, one, two := pair(t, quickly(upstream.ProbeHTTP), func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Millisecond)
			answers(name)(w, r)
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var running sync.WaitGroup
	var done, lost atomic.Int64
	for range 8 {
		running.Go(func() {
			for ctx.Err() == nil {
				res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice)
				if done.Add(1); res.StatusCode != 200 {
					lost.Add(1)
					t.Errorf("got %s %s", res.Status, body)
				}
			}
		})
	}
	more := func(what string, n *atomic.Int64) {
		goal := n.Load() + 50
		await(t, what, func() bool { return n.Load() > goal })
	}
	for range 3 {
		more("both serve", &one.requests)
		more("both serve", &two.requests)
		one.kill()
		more("the other one serves", &two.requests)
		one.start()
		more("the one that is back serves", &one.requests)
	}
	stop()
	running.Wait()
	t.Logf("%d requests while one of two was killed three times, %d lost", done.Load(), lost.Load())
}
