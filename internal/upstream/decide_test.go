package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// send sends one request of any method over a session of its own and returns the
// status.
func send(t *testing.T, u *upstream.Upstream, target wire.Target, method, path string, headers ...string) *http.Response {
	t.Helper()
	conn := session(t, u, target)
	defer conn.Close()
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n%s\r\n", method, path, strings.Join(append(headers, ""), "\r\n"))
	ok(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	ok(t, err)
	res.Body.Close()
	return res
}

const (
	webSocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
	spdy      = "Connection: Upgrade\r\nUpgrade: SPDY/3.1"
)

func TestReadOnly(t *testing.T) {
	server := newAPIServer(t)
	everything := `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: all, effect: allow, kubernetes: [{}], services: [{namespace: "*", name: "*"}], tcp: [{cidrs: ["0.0.0.0/0"]}]}
`
	u := start(t, upstream.Config{Kubernetes: &server.rest, ReadOnly: true, Policy: parsePolicy(t, everything), Addresses: []upstream.AddressRule{{Host: "10.0.0.1", Port: "*"}}})
	const pod = "/api/v1/namespaces/default/pods/web"
	for _, request := range []string{
		"GET " + pod, "HEAD " + pod, "GET /api/v1/pods", "GET /api/v1/pods?watch=1", "GET /api/v1/watch/pods", "GET " + pod + "/log?follow=1",
		"GET /version", "GET /apis", "HEAD /healthz", "OPTIONS /api", "GET /apis/apps/v1/deployments", "GET " + pod + "/status",
	} {
		t.Run("N8: read-only allows "+request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			if res := send(t, u, wire.KubernetesAPI(), method, path, asAlice); res.StatusCode != 200 {
				t.Errorf("got %s", res.Status)
			}
		})
	}
	for _, headers := range []string{webSocket, spdy} {
		t.Run("N8: read-only allows a watch and a log by upgrade", func(t *testing.T) {
			for _, path := range []string{"/api/v1/pods?watch=1", pod + "/log?follow=1"} {
				if res := send(t, u, wire.KubernetesAPI(), "GET", path, asAlice, headers); res.StatusCode != 200 {
					t.Errorf("%s: got %s", path, res.Status)
				}
			}
		})
	}
	server.asked.Store(0)
	for _, request := range []string{
		"POST /api/v1/namespaces/default/pods", "PUT " + pod, "PATCH " + pod, "DELETE " + pod, "DELETE /api/v1/namespaces/default/pods",
		"POST " + pod + "/exec?command=id", "GET " + pod + "/exec?command=id", "GET " + pod + "/attach", "GET " + pod + "/portforward", "POST " + pod + "/eviction",
		"GET " + pod + "/proxy", "GET " + pod + "/proxy/x", "GET /api/v1/nodes/a/proxy/run/x", "GET /api/v1/namespaces/default/services/web/proxy/",
		"GET /api/v1/proxy/namespaces/default/pods/web", "GET " + pod + "//exec", "GET //api/v1/namespaces/default//pods/web/exec", "GET " + pod + "%2fexec", "GET " + pod + "%2F%2Fexec",
		"GET " + pod + "/exec/", "get " + pod, "PURGE /version", "POST /version", "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "POST " + pod + "?watch=1",
		"PUT /api/v1/watch/pods", "POST /api/v1/watch/namespaces/default/pods/web",
	} {
		t.Run("N8: read-only refuses "+request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			res := send(t, u, wire.KubernetesAPI(), method, path, asAlice)
			if res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") != "permission-denied" {
				t.Errorf("got %s", res.Status)
			}
			server.wantSilent(t, request)
		})
	}
	for _, headers := range []string{webSocket, spdy} {
		t.Run("N8: read-only refuses other upgrades", func(t *testing.T) {
			for _, path := range []string{pod, "/version", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/b/console", pod + "/exec"} {
				if res := send(t, u, wire.KubernetesAPI(), "GET", path, asAlice, headers); res.StatusCode != 403 {
					t.Errorf("%s: got %s", path, res.Status)
				}
			}
			server.wantSilent(t, headers)
		})
	}
	t.Run("N8: read-only refuses raw addresses", func(t *testing.T) {
		wantCode(t, u.Check(wire.Address("10.0.0.1", 1)), wire.HopAgent, wire.CodePermissionDenied)
		_, err := u.Dial(t.Context(), wire.Address("10.0.0.1", 1))
		wantCode(t, err, wire.HopAgent, wire.CodePermissionDenied)
	})
	t.Run("N8: read-only refuses what may change a service", func(t *testing.T) {
		for _, c := range [][]string{{"POST"}, {"PUT"}, {"DELETE"}, {"PATCH"}, {"QUERY"}, {"GET", webSocket}, {"GET", "X-HTTP-Method-Override: DELETE"}, {"GET", "X_Http_Method: PUT"}} {
			if res := send(t, u, wire.Service("ns", "svc", "1", "http"), c[0], "/", c[1:]...); res.StatusCode != 403 {
				t.Errorf("%q: got %s", c, res.Status)
			}
		}
	})
}

func TestKubernetesPolicy(t *testing.T) {
	server := newAPIServer(t)
	u := start(t, upstream.Config{Kubernetes: &server.rest, Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: no-secrets, effect: deny, kubernetes: [{resources: ["secrets"]}]}
- {name: no-exec, effect: deny, kubernetes: [{resources: ["pods/exec"]}], users: ["cluster:hub:mallory"]}
- {name: no-visitors, effect: deny, kubernetes: [{}], groups: ["cluster:hub:visitors"]}
`)})
	for _, c := range []struct {
		status  int
		path    string
		headers []string
	}{
		{200, "/api/v1/pods", []string{asAlice}},
		{403, "/api/v1/secrets", []string{asAlice}},
		{403, "/api/v1/namespaces/a/secrets/b?watch=1", []string{asAlice}},
		{403, "/api/v1/namespaces/a//secrets/b", []string{asAlice}},
		{403, "/api/v1/namespaces/a%2Fsecrets/b", []string{asAlice}},
		{403, "/api/v1/namespaces/a/%73ecrets/b", []string{asAlice}},
		{403, "/api/v1/watch/secrets", []string{asAlice}},
		{200, "/api/v1/namespaces/a/pods/b/exec", []string{asAlice}},
		{403, "/api/v1/namespaces/a/pods/b/exec", []string{"Impersonate-User: cluster:hub:mallory"}},
		{403, "/api/v1/pods", []string{asAlice, "Impersonate-Group: cluster:hub:visitors"}},
		{400, "/api/v1/watch", []string{asAlice}},
	} {
		t.Run(fmt.Sprintf("N8: the owner's policy answers %d to %s of %s", c.status, c.path, strings.Join(c.headers, " ")), func(t *testing.T) {
			server.asked.Store(0)
			if res := send(t, u, wire.KubernetesAPI(), "GET", c.path, c.headers...); res.StatusCode != c.status {
				t.Errorf("got %s", res.Status)
			}
			if c.status != 200 {
				server.wantSilent(t, c.path)
			}
		})
	}
	t.Run("N8: a caller whom nobody names is denied by rules for some", func(t *testing.T) {
		u := start(t, upstream.Config{Kubernetes: &server.rest, PassThrough: true, Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: no-visitors, effect: deny, kubernetes: [{resources: ["secrets"]}], groups: ["cluster:hub:visitors"]}
`)})
		for path, status := range map[string]int{"/api/v1/secrets": 403, "/api/v1/pods": 200} {
			if res := send(t, u, wire.KubernetesAPI(), "GET", path, "Authorization: Bearer of-caller"); res.StatusCode != status {
				t.Errorf("%s: got %s", path, res.Status)
			}
		}
	})
}

func TestServicePolicy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s", r.Host, r.Header.Get("Impersonate-User"))
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	ok(t, err)
	names := newNameServer(t)
	for _, service := range []string{"web", "db", "private", "flag"} {
		names.set(service+".ns.svc.cluster.local", addresses("127.0.0.1"))
	}
	cfg := upstream.Config{
		DNSServer: names.addr(), SpecialAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Services: []upstream.ServiceRule{{Namespace: "ns", Name: "flag"}, {Namespace: "ns", Name: "db"}},
	}
	plain := start(t, cfg)
	cfg.Policy = parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: web, effect: allow, services: [{namespace: ns, name: web}]}
- {name: private, effect: allow, services: [{namespace: ns, name: private}], users: ["cluster:hub:alice"]}
- {name: no-db, effect: deny, services: [{namespace: ns, name: db}]}
`)
	u := start(t, cfg)
	for _, c := range []struct {
		status  int
		service string
		headers []string
	}{
		{200, "web", nil},
		{200, "flag", nil},
		{200, "private", []string{asAlice}},
		{403, "private", nil},
		{403, "private", []string{"Impersonate-User: cluster:hub:bob"}},
		{403, "private", []string{"Impersonate-User: alice"}},
		{403, "db", nil},
		{403, "other", nil},
	} {
		t.Run(fmt.Sprintf("K8: the owner's policy answers %d to service %s of %s", c.status, c.service, strings.Join(c.headers, " ")), func(t *testing.T) {
			res, body := ask(t, u, wire.Service("ns", c.service, at.Port(), "http"), "/", c.headers...)
			if res.StatusCode != c.status {
				t.Errorf("got %s %s", res.Status, body)
			}
			if want := c.service + ".ns.svc:" + at.Port() + "|"; c.status == 200 && body != want {
				t.Errorf("the service got %q, want %q", body, want)
			}
		})
	}
	t.Run("K8: a port that is asked for by name is held against its number for each caller, also on a pooled connection", func(t *testing.T) {
		number, err := strconv.ParseUint(at.Port(), 10, 16)
		ok(t, err)
		names.port("main", "web.ns.svc.cluster.local", uint16(number))
		u := start(t, upstream.Config{DNSServer: names.addr(), SpecialAddresses: cfg.SpecialAddresses, Policy: parsePolicy(t, `
apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- {name: some, effect: allow, services: [{namespace: ns, name: web, port: "`+at.Port()+`"}], users: ["cluster:hub:alice", "cluster:hub:carol"]}
- {name: not-carol, effect: deny, services: [{namespace: ns, name: web, port: "`+at.Port()+`"}], users: ["cluster:hub:carol"]}
`)})
		began := time.Now()
		for range 2 {
			for who, status := range map[string]int{"alice": 200, "bob": 403, "carol": 403} {
				if res, body := ask(t, u, wire.Service("ns", "web", "main", "http"), "/", "Impersonate-User: cluster:hub:"+who); res.StatusCode != status {
					t.Errorf("%s: got %s %s", who, res.Status, body)
				}
			}
		}
		took := time.Since(began)
		if n, most := names.times("_main._tcp.web.ns.svc.cluster.local"), 1+int(took/(5*time.Second)); n < 1 || n > most {
			t.Errorf("DNS was asked %d times within %v, want %d at most", n, took, most)
		}
	})
	t.Run("V20: without a rule nothing is reached, and the refusal says how to allow it", func(t *testing.T) {
		res, body := ask(t, plain, wire.Service("ns", "other", "1", "http"), "/")
		if res.StatusCode != 403 || !strings.Contains(body, "--allow-service ns/other:1") {
			t.Errorf("got %s %s", res.Status, body)
		}
		for _, u := range []*upstream.Upstream{plain, u} {
			err := u.Check(wire.Address("10.0.0.1", 80))
			wantCode(t, err, wire.HopAgent, wire.CodePermissionDenied)
			if !strings.Contains(err.Error(), "--allow-address 10.0.0.1:80") {
				t.Errorf("got %v", err)
			}
		}
		if n := names.times("other.ns.svc.cluster.local"); n != 0 {
			t.Errorf("DNS was asked %d times about what is not allowed", n)
		}
	})
	t.Run("K8: a request line or Host with another address leads nowhere else", func(t *testing.T) {
		target := wire.Service("ns", "web", at.Port(), "http")
		if _, body := ask(t, u, target, "http://169.254.169.254/latest", "X-Forwarded-Host: 169.254.169.254"); body != "web.ns.svc:"+at.Port()+"|" {
			t.Errorf("got %s", body)
		}
	})
}

// undecided is an authorizer that has nobody to ask.
type undecided struct{}

func (undecided) Authorize(context.Context, policy.Request) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, errors.New("nobody to ask")
}

func TestEveryRequest(t *testing.T) {
	server := newAPIServer(t)
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(rules string) {
		ok(t, os.WriteFile(path, []byte("apiVersion: policy.culvert.dev/v1\nkind: Policy\n"+rules), 0o600))
	}
	write("")
	file, err := policy.Open(path, policy.Options{Agent: true}, slog.New(slog.DiscardHandler))
	ok(t, err)
	u := start(t, upstream.Config{Kubernetes: &server.rest, Policy: file})
	conn := session(t, u, wire.KubernetesAPI())
	in := bufio.NewReader(conn)
	next := func(t *testing.T) (status int, body string) {
		t.Helper()
		_, err := fmt.Fprintf(conn, "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", asAlice)
		ok(t, err)
		res, err := http.ReadResponse(in, nil)
		ok(t, err)
		text, err := io.ReadAll(res.Body)
		ok(t, err)
		return res.StatusCode, string(text)
	}
	t.Run("H: access is checked with each request of a session, not at its start alone", func(t *testing.T) {
		if status, body := next(t); status != 200 {
			t.Errorf("got %d %s", status, body)
		}
		write("rules: [{name: closed-today, effect: deny, kubernetes: [{}]}]")
		ok(t, file.Reload())
		if status, body := next(t); status != 403 || !strings.Contains(body, "closed-today") {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("K8: a bad file leaves the rules before it in force", func(t *testing.T) {
		write("rules: nonsense")
		if file.Reload() == nil {
			t.Fatal("no error")
		}
		if status, body := next(t); status != 403 || !strings.Contains(body, "closed-today") {
			t.Errorf("got %d %s", status, body)
		}
		write("default: kubernetes")
		ok(t, file.Reload())
		if status, body := next(t); status != 200 {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("N10: a policy that cannot decide refuses with 503 of the agent", func(t *testing.T) {
		u := start(t, upstream.Config{Kubernetes: &server.rest, Policy: undecided{}})
		server.asked.Store(0)
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 503 || !strings.Contains(body, "nobody to ask") {
			t.Errorf("got %s %s", res.Status, body)
		}
		server.wantSilent(t, "undecided")
		_, err := u.Dial(t.Context(), wire.Address("10.0.0.1", 1))
		wantCode(t, err, wire.HopAgent, wire.CodeUnavailable)
	})
}
