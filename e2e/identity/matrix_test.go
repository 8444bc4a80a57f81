package identity

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	firstPath   = "/api/v1/namespaces/work/configmaps/first"
	foreignPath = "/api/v1/namespaces/default/configmaps/first" // which no role of the cluster allows
	secretsPath = "/api/v1/namespaces/work/secrets"             // which the hub's policy denies
)

// cell is one caller and one outcome.
type cell struct {
	rows, kind, outcome string
	call                call

	// status and reason are what comes; code is the hub's own, empty for answers of
	// the API server.
	status       int
	reason, code string
	// says is in the message.
	says []string
	// user, as and method are of the audit line; decision and rule too.
	user, as, method, decision, rule string
}

// callers are the kinds of callers, each with a credential that is good.
type caller struct {
	kind, user, method string
	cluster            string
	call               call
}

func callers(ctx context.Context, t *testing.T) []caller {
	t.Helper()
	carol, err := the.users.issue("carol", []string{"dev"}, time.Now().Add(time.Hour))
	must(t, err)
	olga, err := the.good.token(ctx, "", nil)
	must(t, err)
	return []caller{
		{"a client certificate", "carol", "client-certificate", "managed", call{cert: &carol}},
		{"a static token", "ada", "static-token", "managed", call{token: the.ada}},
		{"an OIDC token", "oidc:olga@example.com", "oidc", "managed", call{token: olga}},
		{"a token by TokenReview", "system:serviceaccount:team:robot", "token-review", "managed", call{token: the.robot}},
		{"a token in Culvert-Authorization", "ada", "static-token", "managed", call{header: []string{"Culvert-Authorization", "Bearer " + the.ada}}},
		{"a token that the cluster judges", "system:culvert:pass-through", "pass-through", "open", call{token: the.passer}},
		{"a user who acts as another", "boss", "static-token", "managed", call{token: the.boss, header: []string{"Impersonate-User", "ada", "Impersonate-Group", "dev"}}},
	}
}

func (c caller) to(path string) call {
	out := c.call
	out.path = "/" + c.cluster + path
	return out
}

// matrix is every kind of caller with every outcome that it can have.
func matrix(ctx context.Context, t *testing.T) []cell {
	t.Helper()
	var cells []cell
	for _, c := range callers(ctx, t) {
		as := ""
		if c.user == "boss" {
			as = "ada"
		}
		cells = append(cells,
			cell{rows: "O4,O14,O15,O16,N11", kind: c.kind, outcome: "allowed", call: c.to(firstPath), status: 200, user: c.user, as: as, method: c.method, decision: "allow", rule: "(default)"},
			cell{rows: "O16,D18", kind: c.kind, outcome: "denied by the cluster", call: c.to(foreignPath), status: 403, reason: "Forbidden", user: c.user, as: as, method: c.method, decision: "allow", rule: "(default)"},
			cell{rows: "N8,V20,D18", kind: c.kind, outcome: "denied by the hub's policy", call: c.to(secretsPath), status: 403, reason: "Forbidden", code: "permission-denied",
				says: []string{"no-secrets"}, user: c.user, as: as, method: c.method, decision: "deny", rule: "no-secrets"})
	}
	return append(cells, refusals(ctx, t)...)
}

// refusals are callers that are nobody.
func refusals(ctx context.Context, t *testing.T) []cell {
	t.Helper()
	stale, err := expired(the.hubCluster, the.robot)
	must(t, err)
	insider, err := the.managed.CreateToken(ctx, "work", "caller")
	must(t, err)
	the.plant("a token of the managed cluster", insider)
	over, err := expired(the.managed, insider)
	must(t, err)
	oidc := func(key string, change claims) string {
		token, err := the.good.token(ctx, key, change)
		must(t, err)
		return token
	}
	hour := time.Now().Add(-time.Hour).Unix()
	past := oidc("", claims{"iat": hour, "exp": hour + 60})
	nobody := func(rows, kind, outcome string, c call, says ...string) cell {
		if c.path == "" {
			c.path = "/managed" + firstPath
		}
		return cell{rows: rows, kind: kind, outcome: outcome, call: c, status: 401, reason: "Unauthorized", code: "unauthenticated", says: says}
	}
	return []cell{
		nobody("V9,D18", "nobody", "without a credential", call{}),
		nobody("O14,D18", "a static token", "unknown", call{token: "no-such-token"}),
		nobody("O14,D18", "an OIDC token", "expired", call{token: past}, "expired"),
		nobody("O14,D18", "a token in Culvert-Authorization", "expired", call{header: []string{"Culvert-Authorization", "Bearer " + past}}, "expired"),
		nobody("O14,D18", "a token in Culvert-Authorization", "expired, beside a good one for the service", call{token: the.ada, header: []string{"Culvert-Authorization", "Bearer " + past}}, "expired"),
		nobody("N9,D18", "a user who acts as another", "expired", call{token: past, header: []string{"Impersonate-User", "ada"}}, "expired"),
		nobody("O14,D18", "an OIDC token", "for another audience", call{token: oidc("", claims{"aud": "other"})}),
		nobody("O14,D18", "an OIDC token", "signed with another key", call{token: oidc("forged", nil)}),
		nobody("O14,D18", "an OIDC token", "without a claim that is demanded", call{token: oidc("", claims{"email_verified": false})}),
		nobody("O14,D18", "an OIDC token", "as a user of the system's own", call{token: oidc("", claims{"email": "x@example.com", "teams": []string{"system:masters"}, "aud": "other"})}),
		nobody("O14,O18,D18", "a token by TokenReview", "expired", call{token: stale}),
		nobody("K7,D18", "a token that the cluster judges", "expired", call{token: over, path: "/open" + firstPath}, "expired"),
		nobody("K7,D18", "a token that the cluster judges", "for a cluster that is not listed", call{token: the.passer}),
		nobody("K7,D18", "a token that the cluster judges", "in Culvert-Authorization", call{path: "/open" + firstPath, header: []string{"Culvert-Authorization", "Bearer " + the.passer}}),
		{
			rows: "K7,D18", kind: "a token that the cluster judges", outcome: "unknown to the cluster", call: call{token: "no-such-token", path: "/open" + firstPath},
			status: 401, reason: "Unauthorized", user: "system:culvert:pass-through", method: "pass-through", decision: "allow", rule: "(default)",
		},
		{
			rows: "N9,D18", kind: "a user who acts as another", outcome: "as somebody whom no rule names", call: call{token: the.boss, path: "/managed" + firstPath, header: []string{"Impersonate-User", "root"}},
			status: 403, reason: "Forbidden", code: "permission-denied", user: "boss", method: "static-token", decision: "deny",
		},
		{
			rows: "N9,D18", kind: "a user who acts as another", outcome: "in a group that no rule names", call: call{token: the.boss, path: "/managed" + firstPath, header: []string{"Impersonate-User", "ada", "Impersonate-Group", "system:masters"}},
			status: 403, reason: "Forbidden", code: "permission-denied", user: "boss", method: "static-token", decision: "deny",
		},
		{
			rows: "N9,D18", kind: "a user who acts as another", outcome: "without a rule for them", call: call{token: the.ada, path: "/managed" + firstPath, header: []string{"Impersonate-User", "boss"}},
			status: 403, reason: "Forbidden", code: "permission-denied", user: "ada", method: "static-token", decision: "deny",
		},
	}
}

// TestExpiredCertificate is the cell of the matrix that has no answer: who shows a
// certificate that is over does not get through the handshake. One that expires
// later is in TestEachRequestIsChecked.
func TestExpiredCertificate(t *testing.T) {
	t.Run("O14: a client certificate, expired, ends the handshake", func(t *testing.T) {
		ctx := within(t, time.Minute)
		past, err := the.users.issue("carol", []string{"dev"}, time.Now().Add(-time.Minute))
		must(t, err)
		// What other tests have asked has its line by now.
		first, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: the.ada})
		must(t, err)
		_, err = lineOf(ctx, first)
		must(t, err)
		lines, err := auditLines(auditFile())
		must(t, err)
		known := map[string]bool{} // a session that is open still has further lines
		for _, l := range lines {
			known[l.RequestID] = true
		}
		// In TLS 1.3 a client has its part of the handshake behind it when the server
		// refuses, and is told when it reads.
		conn, err := the.hub.raw(past).Dial(ctx, "http/1.1")
		if err == nil {
			must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = conn.Read(make([]byte, 1))
			must(t, conn.Close())
		}
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
		if got, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: the.ada, cert: &past}); err == nil {
			t.Errorf("with a good token beside it: %d %s", got.status, got.body)
		}
		// A later request of a known caller: what was before it has its line by now.
		got, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: the.ada})
		must(t, err)
		_, err = lineOf(ctx, got)
		must(t, err)
		after, err := auditLines(auditFile())
		must(t, err)
		fresh := slices.DeleteFunc(after[len(lines):], func(l line) bool { return known[l.RequestID] })
		if len(fresh) != 1 {
			t.Errorf("%d lines, want the one of the later request: %+v", len(fresh), fresh)
		}
	})
}

func TestMatrix(t *testing.T) {
	for _, c := range matrix(within(t, time.Minute), t) {
		t.Run(c.rows+": "+c.kind+", "+c.outcome, func(t *testing.T) {
			ctx := within(t, time.Minute)
			got, err := the.hub.ask(ctx, c.call)
			must(t, err)
			c.judge(ctx, t, got)
		})
	}
}

// judge looks at the answer, the audit line and the trace.
func (c cell) judge(ctx context.Context, t *testing.T, got reply) {
	t.Helper()
	if got.status != c.status || got.header.Get("X-Culvert-Error") != c.code {
		t.Fatalf("%d with X-Culvert-Error %q, want %d and %q: %s", got.status, got.header.Get("X-Culvert-Error"), c.status, c.code, got.body)
	}
	if c.status != 200 {
		s, err := statusIn(got)
		if err != nil {
			t.Error(err)
		}
		if s.Reason != c.reason {
			t.Errorf("reason %q, want %q", s.Reason, c.reason)
		}
		for _, words := range c.says {
			if !strings.Contains(s.Message, words) {
				t.Errorf("the message does not say %q: %s", words, s.Message)
			}
		}
	}
	l, err := lineOf(ctx, got)
	must(t, err)
	if l.User.Name != c.user || l.Authentication != c.method && c.method != "" || l.ImpersonatedUser.Name != c.as && c.decision == "allow" {
		t.Errorf("the audit line has user %q by %q as %q; want %q by %q as %q", l.User.Name, l.Authentication, l.ImpersonatedUser.Name, c.user, c.method, c.as)
	}
	if l.Decision != c.decision || c.rule != "" && l.Rule != c.rule || l.Status != c.status || l.Code != c.code {
		t.Errorf("the audit line has decision %q by %q, status %d, code %q; want %q by %q, %d, %q", l.Decision, l.Rule, l.Status, l.Code, c.decision, c.rule, c.status, c.code)
	}
	if host, err := os.Hostname(); err != nil || l.Hub != host || (l.Agent == host) != (c.decision == "allow") || l.Agent != "" && l.Agent != host {
		t.Errorf("the audit line has hub %q and agent %q, both on %q: %v", l.Hub, l.Agent, host, err)
	}
	if l.Stage != "request" || l.Cluster == "" || l.Method != "GET" || l.Path != c.call.path && !strings.HasSuffix(c.call.path, l.Path) || l.Source == "" || l.Duration <= 0 {
		t.Errorf("incomplete audit line: %+v", l)
	}
	c.judgeTrace(ctx, t, got)
}

// judgeTrace wants a span of each hop that the request came to, in the trace of
// the caller.
func (c cell) judgeTrace(ctx context.Context, t *testing.T, got reply) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	services := []string{"culvert-hub"}
	if c.decision == "allow" {
		services = append(services, "culvert-agent")
	}
	err := testbed.Poll(ctx, "the spans of trace "+got.trace, func(context.Context) error {
		seen := map[string]bool{}
		for _, s := range the.traces.Trace(got.trace) {
			seen[s.Service] = true
			if s.Service == "culvert-agent" && c.decision != "allow" {
				t.Fatalf("a request that was refused came to the agent: %+v", s)
			}
		}
		for _, service := range services {
			if !seen[service] {
				return fmt.Errorf("none of %s: %v", service, seen)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
