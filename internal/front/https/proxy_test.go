package https_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func versions(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Helper()
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

func TestKubernetesAPI(t *testing.T) {
	const podList = `{"kind":"PodList",  "items":[]}` + "\n"
	seen := make(chan *http.Request, 1)
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("X-Culvert-Error", "forged")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, podList)
	})})
	versions(t, func(t *testing.T, http2 bool) {
		t.Helper()
		r := b.request(http.MethodGet, "/edge-1/api/v1/namespaces/default/pods?watch=0&labelSelector=a%3Db", nil)
		for _, name := range []string{"X-Remote-User", "X_Remote_Group", "X-Forwarded-For", "Culvert-Authorization"} {
			r.Header[name] = []string{"system:masters"}
		}
		r.Header.Set("Culvert-Authorization", "Bearer "+hubToken)
		r.Header.Set("User-Agent", "")
		r.Header.Set("X-Other", "kept")
		res, err := b.client(http2).Do(r)
		ok(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		got := <-seen

		t.Run("O19: the documented call works with a bearer token", func(t *testing.T) {
			if res.StatusCode != 200 || (res.ProtoMajor == 2) != http2 {
				t.Errorf("got %s %s", res.Proto, res.Status)
			}
		})
		t.Run("O20: the path form reaches the API server over HTTP/2 with the query as it was", func(t *testing.T) {
			if want := "/api/v1/namespaces/default/pods?watch=0&labelSelector=a%3Db"; got.RequestURI != want || got.ProtoMajor != 2 {
				t.Errorf("the API server saw %s %s, want %s", got.Proto, got.RequestURI, want)
			}
		})
		t.Run("O22: the list's bytes are unmodified", func(t *testing.T) {
			if string(body) != podList || res.Header.Get("Content-Type") != "application/json" {
				t.Errorf("got %q, %v", body, res.Header)
			}
		})
		t.Run("O3: the API server sees the agent's credential and the mapped user only", func(t *testing.T) {
			want := map[string][]string{
				"Authorization": {"Bearer " + agentToken}, "Impersonate-User": {"cluster:hub:alice"}, "Impersonate-Group": {"cluster:hub:dev"},
				"X-Remote-User": nil, "Impersonate_user": nil, "Culvert-Authorization": nil, "X-Forwarded-For": nil,
				"User-Agent": nil, "Accept-Encoding": nil, "X-Other": {"kept"},
			}
			for name, values := range want {
				if fmt.Sprint(got.Header[name]) != fmt.Sprint(values) {
					t.Errorf("%s: %q, want %q", name, got.Header[name], values)
				}
			}
		})
		t.Run("D18: a target cannot forge X-Culvert-Error", func(t *testing.T) {
			if forged := res.Header.Get("X-Culvert-Error"); forged != "" {
				t.Errorf("X-Culvert-Error: %q", forged)
			}
		})
	})
	if log := b.log.String(); strings.Contains(log, "labelSelector") || strings.Contains(log, hubToken) || strings.Contains(log, agentToken) {
		t.Errorf("the log has a query or a token:\n%s", log)
	}
}

func TestExactTarget(t *testing.T) {
	kubeSaw := make(chan string, 1)
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { kubeSaw <- r.RequestURI })})
	serviceSaw := make(chan string, 1)
	port := b.rawTarget(func(head string, conn *net.TCPConn, _ *bufio.Reader) {
		line, _, _ := strings.Cut(head, "\r\n")
		serviceSaw <- line
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	paths := []string{
		"/a%3Ab:c", "/a%2Fb%2fc", "//a//b//", "/a%20b+c", "/%252e%252e/x", "/x?", "/x??", "/x?a=1;b=2&c=%zz&d=/../e?f", "/?a=b%20c+d", "/a|b[c]^{d}\"<e>",
		"/caf%C3%A9", "/~a!b$c&d'e(f)*g,h;i=j@k", "/", "/a/", "/x?u=http://y//z%2F", "/...", "//a|b",
	}
	for _, path := range paths {
		t.Run("O20: "+path+" reaches both kinds of target byte for byte", func(t *testing.T) {
			conn := b.raw()
			_, err := io.WriteString(conn, head("GET /edge-1"+path, "Connection: keep-alive")+head("GET "+service("http:web:"+port, path)))
			ok(t, err)
			r := bufio.NewReader(conn)
			for range 2 {
				res := readResponse(t, r)
				_, err := io.Copy(io.Discard, res.Body)
				ok(t, err)
				if res.StatusCode != 200 {
					t.Fatalf("status %s", res.Status)
				}
			}
			if got := <-kubeSaw; got != path {
				t.Errorf("API server saw %q", got)
			}
			got := <-serviceSaw
			want := "GET " + path + " HTTP/1.1"
			if strings.HasPrefix(path, "//a|") {
				// The one case in which net/url needs the absolute form.
				want = "GET http://" + port + ".web.default.service" + path + " HTTP/1.1"
			}
			if got != want {
				t.Errorf("service saw %q, want %q", got, want)
			}
		})
	}
}

func TestRefusedPaths(t *testing.T) {
	asked := false
	b := newBed(t, bedConfig{auth: func(r *http.Request) (user.Info, error) {
		asked = true
		return authenticate(r)
	}})
	for _, path := range []string{"/", "/Edge/x", "/edge-1/../x", "/edge-1/%2e%2E/x", "/edge-1/..%5cx", "/edge-1/x%2f../y", "/edge-1/x#y", service("web:0443", "/")} {
		t.Run("O20: "+path+" is 400 before anything is decided", func(t *testing.T) {
			conn := b.raw()
			_, err := io.WriteString(conn, head("GET "+path))
			ok(t, err)
			res := readResponse(t, bufio.NewReader(conn))
			status := decodeStatus(t, res)
			if res.StatusCode != 400 || status.Reason != metav1.StatusReasonBadRequest || res.Header.Get("X-Culvert-Error") != "invalid-target" {
				t.Errorf("got %s, %+v", res.Status, status)
			}
		})
	}
	t.Run("O20: an escape that is none is 400", func(t *testing.T) {
		conn := b.raw()
		_, err := io.WriteString(conn, head("GET /edge-1/%zz"))
		ok(t, err)
		if res := readResponse(t, bufio.NewReader(conn)); res.StatusCode != 400 {
			t.Errorf("got %s", res.Status)
		}
	})
	if asked {
		t.Error("a caller was authenticated for a path that is refused")
	}
}

func decodeStatus(t *testing.T, res *http.Response) *metav1.Status {
	t.Helper()
	defer res.Body.Close()
	status := &metav1.Status{}
	ok(t, json.NewDecoder(res.Body).Decode(status))
	if status.Kind != "Status" || int(status.Code) != res.StatusCode || !strings.Contains(status.Message, res.Header.Get("X-Request-Id")) {
		t.Errorf("no proper Status: %+v", status)
	}
	return status
}

func TestFailures(t *testing.T) {
	var authErr error
	upstreamStatus := http.StatusForbidden
	const denied = `{"kind":"Status","status":"Failure","reason":"Forbidden","message":"from the cluster","code":403}`
	b := newBed(t, bedConfig{
		kube: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(upstreamStatus)
			io.WriteString(w, denied)
		}),
		auth: func(r *http.Request) (user.Info, error) {
			if authErr != nil {
				return nil, authErr
			}
			return authenticate(r)
		},
	})
	client := b.client(true)
	for _, code := range []int{402, 403, 404, 429, 500, 503} {
		t.Run(fmt.Sprintf("D18: the cluster's own %d passes unmodified", code), func(t *testing.T) {
			upstreamStatus = code
			res, body := b.get(client, "/edge-1/api")
			if res.StatusCode != code || body != denied || res.Header.Get("X-Culvert-Error") != "" || res.Header.Get("WWW-Authenticate") != "Basic" {
				t.Errorf("got %s %v %q", res.Status, res.Header, body)
			}
		})
	}
	t.Run("N10: the cluster's 401 is about the agent's credential, and 503 for the caller", func(t *testing.T) {
		upstreamStatus = http.StatusUnauthorized
		res, err := client.Do(b.request(http.MethodGet, "/edge-1/api", nil))
		ok(t, err)
		status := decodeStatus(t, res)
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("X-Culvert-Error") != "unavailable" ||
			!strings.Contains(status.Message, "the agent's own credential") {
			t.Errorf("got %s %s", res.Status, status.Message)
		}
		upstreamStatus = http.StatusForbidden
	})
	check := func(path string, code int, culvert, hop string) *http.Response {
		t.Helper()
		res, err := client.Do(b.request(http.MethodGet, path, nil))
		ok(t, err)
		status := decodeStatus(t, res)
		if res.StatusCode != code || res.Header.Get("X-Culvert-Error") != culvert || status.Details.Causes[0].Message != hop {
			t.Errorf("%s: got %s, %q, %+v", path, res.Status, res.Header.Get("X-Culvert-Error"), status)
		}
		return res
	}
	t.Run("D18: hub-made errors are Status answers", func(t *testing.T) {
		check("/edge-2/api", 404, "not-found", "hub")
		b.dns.set("missing.default.svc.cluster.local.")
		check(service("http:missing:1", "/"), 404, "not-found", "agent")
		check("/edge-1/api/v1/namespaces/other/services/web/proxy-service/", 403, "permission-denied", "agent")
		l := listen(t)
		refused := portOf(l)
		l.Close()
		check(service("http:web:"+refused, "/"), 502, "connection-refused", "target")
		check(service("https:web:nosuch", "/"), 404, "not-found", "agent")
	})
	t.Run("O21: a service that does not speak TLS, or not under its name, is a TLS failure", func(t *testing.T) {
		plain, foreign := listen(t), listen(t)
		serveHTTP(t, plain, nil, http.NotFoundHandler())
		serveHTTP(t, foreign, b.ca.config([]string{"http/1.1"}, "other.default.svc"), http.NotFoundHandler())
		check(service("https:web:"+portOf(plain), "/"), 502, "tls-failure", "target")
		check(service("https:web:"+portOf(foreign), "/"), 502, "tls-failure", "target")
	})
	t.Run("O21: a service that answers nonsense or nothing", func(t *testing.T) {
		nonsense := b.rawTarget(func(_ string, conn *net.TCPConn, _ *bufio.Reader) { io.WriteString(conn, "nonsense\r\n\r\n") })
		nothing := b.rawTarget(func(string, *net.TCPConn, *bufio.Reader) {})
		check(service("http:web:"+nonsense, "/"), 502, "protocol-error", "target")
		check(service("http:web:"+nothing, "/"), 502, "connection-reset", "target")
	})
	t.Run("O19: no or a wrong token is 401, a failing backend 503", func(t *testing.T) {
		r := b.request(http.MethodGet, "/edge-1/api", nil)
		r.Header.Del("Authorization")
		res, err := client.Do(r)
		ok(t, err)
		if status := decodeStatus(t, res); res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("got %s %+v", res.Status, status)
		}
		authErr = &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnavailable, Err: errors.New("backend away")}
		check("/edge-1/api", 503, "unavailable", "hub")
		authErr = nil
	})
	t.Run("a cluster that is away is 503 with Retry-After", func(t *testing.T) {
		b.cutSessions()
		b.refuseDials(&fault.Error{Hop: wire.HopHub, Op: "dial", Code: wire.CodeUnavailable, Cluster: "edge-1", RetryAfter: 2 * time.Second})
		defer b.refuseDials(nil)
		res := check("/edge-1/api", 503, "unavailable", "hub")
		if res.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
		}
	})
	t.Run("a panic is a 500 and the hub goes on", func(t *testing.T) {
		panicking := newBed(t, bedConfig{auth: func(*http.Request) (user.Info, error) { panic("boom") }})
		res, err := panicking.client(false).Do(panicking.request(http.MethodGet, "/edge-1/api", nil))
		ok(t, err)
		if status := decodeStatus(t, res); res.StatusCode != 500 || strings.Contains(status.Message, "boom") || !strings.Contains(panicking.log.String(), "boom") {
			t.Errorf("got %+v", status)
		}
	})
}

func TestServices(t *testing.T) {
	b := newBed(t, bedConfig{})
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s auth=%q user=%q", r.Host, r.Proto, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"))
	})
	secure, plain := listen(t), listen(t)
	serveHTTP(t, secure, b.ca.config([]string{"h2", "http/1.1"}, "web.default.svc"), echo)
	serveHTTP(t, plain, nil, echo)
	securePort, plainPort := portOf(secure), portOf(plain)
	b.dns.set("_https._tcp.web.default.svc.cluster.local.", uint16(secure.Addr().(*net.TCPAddr).Port))
	b.dns.set("web.default.svc.cluster.local.", uint16(secure.Addr().(*net.TCPAddr).Port))
	client := b.client(true)
	tests := []struct{ name, spec, want string }{
		{"O21: https is verified by the service's name", "https:web:" + securePort, "web.default.svc:" + securePort + " HTTP/2.0 /x"},
		{"O21: https is the default", "web:" + securePort, "web.default.svc:" + securePort + " HTTP/2.0 /x"},
		{"O21: plain http", "http:web:" + plainPort, "web.default.svc:" + plainPort + " HTTP/1.1 /x"},
		{"O21: a named port is looked up as an SRV record", "web:https", "web.default.svc HTTP/2.0 /x"},
		{"O21: no port means the only one", "web", "web.default.svc HTTP/2.0 /x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, body := b.get(client, service(tt.spec, "/x"))
			if want := tt.want + ` auth="" user=""`; res.StatusCode != 200 || body != want {
				t.Errorf("got %s %s, want %s", res.Status, body, want)
			}
		})
	}
	t.Run("O3: Authorization is the service's when the hub's credential has its own header", func(t *testing.T) {
		r := b.request(http.MethodGet, service("http:web:"+plainPort, "/x"), nil)
		r.Header.Set("Culvert-Authorization", "Bearer "+hubToken)
		r.Header.Set("Authorization", "Basic service")
		res, err := client.Do(r)
		ok(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		if !strings.Contains(string(body), `auth="Basic service"`) {
			t.Errorf("got %s", body)
		}
	})
}
