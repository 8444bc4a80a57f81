package https_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/wire"
)

// answers is an API server that says whom it sees.
var answers = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Seen-User", r.Header.Get("Impersonate-User"))
	w.Header().Set("X-Seen-Real", strings.Join(append(r.Header.Values("Impersonate-Extra-Culvert.dev%2fhub-User"), r.Header.Values("Impersonate-Extra-Culvert.dev%2Fhub-User")...), ","))
	w.Header().Set("X-Seen-Authorization", r.Header.Get("Authorization"))
})

// status reads the hub's refusal.
func status(t *testing.T, res *http.Response, body string) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || res.Header.Get("X-Culvert-Error") == "" {
		t.Fatalf("%s is no refusal of the hub: %s", res.Status, body)
	}
	return s
}

func TestPolicy(t *testing.T) {
	b := newBed(t, bedConfig{kube: answers, policy: rules(t, `rules:
- {name: no-secrets, effect: deny, kubernetes: [{resources: [secrets]}]}`)})
	client := b.client(true)
	t.Run("V20,N8: without a rule the Kubernetes API is reached and a service is not, and the refusal has the rule to write", func(t *testing.T) {
		if res, body := b.get(client, "/edge-1/api/v1/pods"); res.StatusCode != 200 {
			t.Errorf("%s: %s", res.Status, body)
		}
		res, body := b.get(client, service("https:web:8443", "/"))
		s := status(t, res, body)
		if res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") != "permission-denied" || s.Reason != metav1.StatusReasonForbidden {
			t.Fatalf("%s: %+v", res.Status, s)
		}
		_, rule, found := strings.Cut(s.Message, "such as ")
		rule, _, _ = strings.Cut(rule, " (request id")
		if !found {
			t.Fatalf("no rule in %q", s.Message)
		}
		allowed := rules(t, "rules: ["+rule+"]")
		d := allowed.Decide(policy.Request{
			User: &user.DefaultInfo{Name: "alice"}, Cluster: policy.Cluster{Name: "edge-1"},
			Service: &policy.ServiceTarget{Namespace: "default", Name: "web", Port: "8443", Scheme: "https"},
		})
		if !d.Allowed {
			t.Errorf("the rule %s does not allow it: %+v", rule, d)
		}
	})
	t.Run("K8: a rule that denies is named", func(t *testing.T) {
		res, body := b.get(client, "/edge-1/api/v1/namespaces/default/secrets/x")
		if s := status(t, res, body); res.StatusCode != 403 || !strings.Contains(s.Message, "no-secrets") {
			t.Errorf("%s: %+v", res.Status, s)
		}
	})
	t.Run("N8: a policy that cannot decide is 503", func(t *testing.T) {
		down := newBed(t, bedConfig{kube: answers, labels: func(string) (map[string]string, error) { return nil, errors.New("the store is away") }})
		res, body := down.get(down.client(true), "/edge-1/api/v1/pods")
		if s := status(t, res, body); res.StatusCode != 503 || !strings.Contains(s.Message, "the store is away") {
			t.Errorf("%s: %+v", res.Status, s)
		}
	})
	t.Run("N8: rules hold by the labels of a cluster", func(t *testing.T) {
		labelled := newBed(t, bedConfig{
			kube: answers, labels: func(string) (map[string]string, error) { return map[string]string{"env": "prod"}, nil },
			policy: rules(t, `rules: [{name: not-prod, effect: deny, clusters: {labels: {env: prod}}, kubernetes: [{verbs: ["*"]}]}]`),
		})
		if res, body := labelled.get(labelled.client(true), "/edge-1/api/v1/pods"); res.StatusCode != 403 {
			t.Errorf("%s: %s", res.Status, body)
		}
	})
}

func TestImpersonation(t *testing.T) {
	b := newBed(t, bedConfig{kube: answers, policy: rules(t, `rules:
- {name: as-bob, effect: allow, users: [alice], impersonate: [{users: [bob]}]}
- {name: not-bob, effect: deny, users: [bob], kubernetes: [{resources: [secrets]}]}`)})
	as := func(name, path string) *http.Response {
		r := b.request(http.MethodGet, path, nil)
		r.Header.Set("Impersonate-User", name)
		res, err := b.client(true).Do(r)
		ok(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		ok(t, errors.Join(err, res.Body.Close()))
		return res
	}
	t.Run("N9: who may acts as another hub user, mapped like any other, with the real one kept", func(t *testing.T) {
		res := as("bob", "/edge-1/api/v1/pods")
		if res.StatusCode != 200 || res.Header.Get("X-Seen-User") != "cluster:hub:bob" || !strings.Contains(res.Header.Get("X-Seen-Real"), "alice") {
			t.Errorf("%s %v", res.Status, res.Header)
		}
	})
	t.Run("N9: the policy holds for whom the caller acts as", func(t *testing.T) {
		if res := as("bob", "/edge-1/api/v1/secrets"); res.StatusCode != 403 {
			t.Errorf("%s", res.Status)
		}
	})
	t.Run("N9: everybody else is refused, and never served as themselves", func(t *testing.T) {
		for _, name := range []string{"carol", "system:admin", "alice"} {
			if res := as(name, "/edge-1/api/v1/pods"); res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") == "" {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
	})
}

func TestLimits(t *testing.T) {
	limits, err := limit.New(limit.Config{
		User: &limit.Bounds{RequestsPerSecond: 0.01, Burst: 2}, Body: resource.MustParse("10"),
	})
	ok(t, err)
	b := newBed(t, bedConfig{kube: answers, limits: limits})
	t.Run("N10: a body that is too long is 413", func(t *testing.T) {
		res, err := b.client(true).Do(b.request(http.MethodPost, "/edge-1/api/v1/pods", strings.NewReader("eleven bytes")))
		ok(t, err)
		body, err := io.ReadAll(res.Body)
		ok(t, errors.Join(err, res.Body.Close()))
		if s := status(t, res, string(body)); res.StatusCode != 413 || s.Reason != metav1.StatusReasonRequestEntityTooLarge {
			t.Errorf("%s: %+v", res.Status, s)
		}
	})
	t.Run("N10: too many requests are 429 with the time to come back", func(t *testing.T) {
		b.get(b.client(true), "/edge-1/api")
		res, body := b.get(b.client(true), "/edge-1/api")
		s := status(t, res, body)
		if res.StatusCode != 429 || s.Reason != metav1.StatusReasonTooManyRequests || res.Header.Get("Retry-After") == "" || s.Details.RetryAfterSeconds == 0 {
			t.Errorf("%s %v: %+v", res.Status, res.Header, s)
		}
	})
}

func TestPassThrough(t *testing.T) {
	b := newBed(t, bedConfig{kube: answers, passThrough: true, identify: func(r *http.Request, cluster string) (identity.Caller, error) {
		chain, err := identity.New(t.Context(), identity.Config{TokenFile: tokenFile(t), PassThrough: []string{"edge-1"}}, slog.New(slog.DiscardHandler))
		if err != nil {
			return identity.Caller{}, err
		}
		defer chain.Close()
		return chain.Identify(r, cluster)
	}})
	ask := func(path, token string) *http.Response {
		r := b.request(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := b.client(true).Do(r)
		ok(t, err)
		ok(t, res.Body.Close())
		return res
	}
	t.Run("K7: a token that the hub does not know goes to its cluster alone, without impersonation", func(t *testing.T) {
		res := ask("/edge-1/api", "of-the-cluster")
		if res.StatusCode != 200 || res.Header.Get("X-Seen-Authorization") != "Bearer of-the-cluster" || res.Header.Get("X-Seen-User") != "" {
			t.Errorf("%s %v", res.Status, res.Header)
		}
	})
	t.Run("K7: a token of the hub never does", func(t *testing.T) {
		res := ask("/edge-1/api", hubToken)
		if res.StatusCode != 200 || res.Header.Get("X-Seen-Authorization") != "Bearer "+agentToken || res.Header.Get("X-Seen-User") != "cluster:hub:alice" {
			t.Errorf("%s %v", res.Status, res.Header)
		}
	})
	t.Run("K7: other clusters and services do not judge tokens", func(t *testing.T) {
		for _, path := range []string{"/edge-2/api", service("https:web", "/")} {
			if res := ask(path, "of-the-cluster"); res.StatusCode != 401 {
				t.Errorf("%s: %s", path, res.Status)
			}
		}
	})
}

func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.csv")
	ok(t, os.WriteFile(path, []byte(hubToken+",alice,1\n"), 0o600))
	return path
}

func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.New(audit.Config{File: &audit.FileConfig{Path: path}, Interval: metav1.Duration{Duration: time.Second}}, audit.Options{Logger: slog.New(slog.DiscardHandler), Hub: "hub-1"})
	ok(t, err)
	defer func() { ok(t, log.Close(t.Context())) }()
	read := 0
	// lines returns the lines that are new, once there are so many: a line is
	// written when its answer is with the caller already.
	lines := func(n int) []map[string]any {
		t.Helper()
		var all []map[string]any
		for deadline := time.Now().Add(patience); len(all) < n; {
			if time.Now().After(deadline) {
				t.Fatalf("%d lines, want %d: %v", len(all), n, all)
			}
			ok(t, log.Flush(t.Context()))
			text, err := os.ReadFile(path)
			ok(t, err)
			text = text[:bytes.LastIndexByte(text, '\n')+1] // the last may be under way
			for line := range bytes.Lines(text[read:]) {
				var one map[string]any
				ok(t, json.Unmarshal(line, &one))
				all = append(all, one)
			}
			read = len(text)
		}
		return all
	}
	b := newBed(t, bedConfig{audit: log, kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, "pods")
			return
		}
		conn, stream, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\n")
		io.Copy(conn, stream)
	})})
	t.Run("N11,D8: a request is one line with who, whom, where, what, the rule and the outcome", func(t *testing.T) {
		b.get(b.client(false), "/edge-1/api/v1/namespaces/shop/pods/web-1?token=secret")
		line := lines(1)[0]
		for field, want := range map[string]any{
			"stage": "request", "hub": "hub-1", "cluster": "edge-1", "agent": "agent-1", "target": "kubernetes", "method": "GET",
			"path": "/edge-1/api/v1/namespaces/shop/pods/web-1", "verb": "get", "resource": "pods", "namespace": "shop", "name": "web-1",
			"decision": "allow", "rule": policy.RuleDefault, "status": 200.0, "sent": 4.0, "end": "completed", "authentication": "static-token",
		} {
			if line[field] != want {
				t.Errorf("%s: %v, want %v", field, line[field], want)
			}
		}
		if who, as := line["user"].(map[string]any), line["clusterUser"].(map[string]any); who["name"] != "alice" || as["name"] != "cluster:hub:alice" {
			t.Errorf("user %v as %v", who, as)
		}
	})
	t.Run("N11: refusals have a line, also of nobody", func(t *testing.T) {
		r := b.request(http.MethodGet, "/edge-1/api", nil)
		r.Header.Del("Authorization")
		res, err := b.client(true).Do(r)
		ok(t, err)
		ok(t, res.Body.Close())
		if line := lines(1)[0]; line["status"] != 401.0 || line["code"] != "unauthenticated" || line["user"] != nil || line["agent"] != nil {
			t.Errorf("%v", line)
		}
	})
	t.Run("N11: an upgraded stream has lines at its start, during and at its end", func(t *testing.T) {
		conn := b.raw()
		_, err := io.WriteString(conn, head("GET /edge-1/api/v1/namespaces/shop/pods/web-1/exec?command=sh", "Upgrade: test", "Connection: Upgrade"))
		ok(t, err)
		buf := make([]byte, 1024)
		if n, err := conn.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 101 ") {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		_, err = io.WriteString(conn, "ping")
		ok(t, err)
		_, err = io.ReadFull(conn, buf[:4])
		ok(t, err)
		all := lines(2)
		ok(t, conn.Close())
		for all[len(all)-1]["stage"] != "session-end" {
			all = append(all, lines(1)...)
		}
		first, second, last := all[0], all[1], all[len(all)-1]
		if first["stage"] != "session-start" || second["stage"] != "session-interval" || last["stage"] != "session-end" {
			t.Errorf("%v %v %v", first["stage"], second["stage"], last["stage"])
		}
		if first["sessionID"] == nil || first["sessionID"] != last["sessionID"] || last["subresource"] != "exec" || last["status"] != 101.0 ||
			second["received"] != 4.0 || last["sent"] != 4.0 {
			t.Errorf("%v\n%v", second, last)
		}
		for _, line := range all {
			if line["agent"] != "agent-1" || line["hub"] != "hub-1" {
				t.Errorf("the agent is %v, the hub %v", line["agent"], line["hub"])
			}
		}
	})
	t.Run("N11: a line names the agent of the session that the request went over at last", func(t *testing.T) {
		path := "/edge-1/api/v1/namespaces/shop/pods"
		for i, want := range []string{"agent-2", "agent-2", "agent-3", "agent-3"} { // the upgraded stream had the first
			if i == 2 {
				b.cutSessions() // the request meets a session that is dead, and is sent again
			}
			b.get(b.client(i%2 == 0), path)
			if line := lines(1)[0]; line["agent"] != want {
				t.Errorf("request %d: the agent is %v, want %s", i, line["agent"], want)
			}
		}
		b.refuseDials(&fault.Error{Hop: wire.HopHub, Op: "route", Code: wire.CodeUnavailable, Cluster: "edge-1", Err: errors.New("no agent")})
		defer b.refuseDials(nil)
		b.cutSessions()
		b.get(b.client(true), path)
		if line := lines(1)[0]; line["status"] != 503.0 || line["code"] != "unavailable" {
			t.Errorf("%v", line)
		}
	})
}

func TestBackendDown(t *testing.T) {
	t.Run("N10: a backend that is down is 503 with its name, and nothing is sent", func(t *testing.T) {
		b := newBed(t, bedConfig{kube: answers, auth: func(*http.Request) (user.Info, error) {
			return nil, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnavailable, Err: errors.New("token review: no answer")}
		}})
		res, body := b.get(b.client(true), "/edge-1/api")
		if s := status(t, res, body); res.StatusCode != 503 || !strings.Contains(s.Message, "token review") || b.dialled() != 0 {
			t.Errorf("%s: %+v", res.Status, s)
		}
	})
}
