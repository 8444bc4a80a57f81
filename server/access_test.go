package server_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/wire"
	"github.com/culvertdev/culvert/server"
)

const policyHead = "apiVersion: policy.culvert.dev/v1\nkind: Policy\n"

// accessible is a hub with a policy file, an audit file and a connected cluster,
// whose agent opens nothing.
func accessible(t *testing.T, rules string) (h *hub, policyFile, auditFile string) {
	t.Helper()
	cfg := config(t)
	dir := t.TempDir()
	policyFile, auditFile = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	write(t, policyFile, policyHead+rules)
	cfg.Policy = &server.Policy{File: policyFile}
	cfg.Audit = &server.Audit{File: &server.AuditFile{Path: auditFile}}
	cfg.Limits = &server.Limits{User: &server.Bounds{Sessions: 1, RequestsPerSecond: 100}}
	cfg.Name = "hub-1"
	h = start(t, cfg)
	m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1", Labels: map[string]string{"env": "prod"}}).Text)
	if err != nil {
		t.Fatal(err)
	}
	h.connect(m)
	await(t, "the agent is connected", func() bool { return len(h.server.Agents()) == 1 })
	return h, policyFile, auditFile
}

func TestDial(t *testing.T) {
	h, policyFile, auditFile := accessible(t, "rules: [{name: db, effect: allow, users: [ada], clusters: {labels: {env: prod}}, tcp: [{hosts: [db.internal], ports: [\"5432\"]}]}]\n")
	code := func(err error) (wire.Hop, wire.Code) {
		f := fault.As(err)
		if f == nil {
			t.Fatalf("%v is no fault", err)
		}
		return f.Hop, f.Code
	}
	dial := func(name, address string) error {
		conn, err := h.server.DialAs(t.Context(), server.Caller{Name: name}, "edge-1", "tcp", address)
		if err == nil {
			t.Error("an agent without a handler opened a session")
			conn.Close()
		}
		return err
	}
	t.Run("N8,V20: a caller's session needs a rule of the hub, and the refusal has it", func(t *testing.T) {
		err := dial("bob", "db.internal:5432")
		if hop, c := code(err); hop != wire.HopHub || c != wire.CodePermissionDenied || !strings.Contains(err.Error(), `tcp: [{hosts: ["db.internal"], ports: ["5432"]}]`) {
			t.Errorf("%v", err)
		}
	})
	t.Run("N8: what the hub allows, by the labels that it gave, is the agent's to decide", func(t *testing.T) {
		for _, address := range []string{"db.internal:5432", "DB.internal.:5432"} {
			if hop, _ := code(dial("ada", address)); hop != wire.HopAgent {
				t.Errorf("%s ended at the %v", address, hop)
			}
		}
	})
	t.Run("N8: the program's own sessions are its privilege", func(t *testing.T) {
		_, err := h.server.DialContext(t.Context(), "edge-1", "tcp", "other.internal:1")
		if hop, _ := code(err); hop != wire.HopAgent {
			t.Errorf("%v", err)
		}
	})
	t.Run("N8: nobody is no caller", func(t *testing.T) {
		if _, c := code(dial("", "db.internal:5432")); c != wire.CodeUnauthenticated {
			t.Errorf("%v", c)
		}
	})
	t.Run("N8: a changed policy counts with Reload, and a bad one leaves the one before in force", func(t *testing.T) {
		write(t, policyFile, policyHead+"rules: [{name: db, effect: allow, users: [bob], tcp: [{hosts: [db.internal], ports: [\"5432\"]}]}]\n")
		if err := h.server.Reload(); err != nil {
			t.Fatal(err)
		}
		if hop, _ := code(dial("bob", "db.internal:5432")); hop != wire.HopAgent {
			t.Errorf("bob ended at the %v", hop)
		}
		write(t, policyFile, policyHead+"rulez: []\n")
		if err := h.server.Reload(); err == nil || !strings.Contains(err.Error(), "rulez") {
			t.Errorf("%v", err)
		}
		if hop, _ := code(dial("bob", "db.internal:5432")); hop != wire.HopAgent {
			t.Errorf("bob ended at the %v", hop)
		}
		found := false
		for _, health := range h.server.Health() {
			found = found || health.Name == "policy" && strings.Contains(health.LastError, "rulez") && health.Failures == 1
		}
		if !found {
			t.Errorf("health: %+v", h.server.Health())
		}
	})
	t.Run("N11: each session that was asked for has an audit line, with the caller or as the program's", func(t *testing.T) {
		h.stop()
		text, err := os.ReadFile(auditFile)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for line := range strings.Lines(string(text)) {
			var e struct {
				Stage, Hub, Cluster, Agent, Target, Authentication, Decision, Rule, Hop, Code string
				User                                                                          struct{ Name string }
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if e.Stage != "session-end" || e.Hub != "hub-1" || e.Cluster != "edge-1" || e.Authentication != "program" || e.Code == "" {
				t.Errorf("%s", line)
			}
			if asked := e.Hop == "agent"; asked != (e.Agent == "edge-1-6f9c") || e.Agent != "" && !asked {
				t.Errorf("agent %q: %s", e.Agent, line)
			}
			seen[e.User.Name+" "+e.Decision+" "+e.Rule]++
		}
		for what, n := range map[string]int{"bob deny (default)": 1, "ada allow db": 2, "bob allow db": 2, "  ": 1} {
			if seen[what] != n {
				t.Errorf("%q: %d lines, want %d: %v", what, seen[what], n, seen)
			}
		}
	})
}

func TestAccessConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*server.Config)
		want   string
	}{
		"policy file that is bad": {func(c *server.Config) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			write(t, path, policyHead+"rules: [{name: x, efect: allow}]\n")
			c.Policy = &server.Policy{File: path}
		}, "rules[0].efect"},
		"two reviewers": {func(c *server.Config) {
			c.Policy = &server.Policy{SubjectAccessReview: &server.SubjectAccessReview{Kubeconfig: "x", InCluster: true}}
		}, "policy.subjectAccessReview: kubeconfig and inCluster exclude each other"},
		"no reviewer":  {func(c *server.Config) { c.Policy = &server.Policy{SubjectAccessReview: &server.SubjectAccessReview{}} }, "policy.subjectAccessReview: no cluster is named"},
		"two prefixes": {func(c *server.Config) { c.IdentityPrefix, c.Identity = "a:", &server.Identity{Prefix: "b:"} }, "identity.prefix, identityPrefix: are the same"},
		"pass-through": {func(c *server.Config) { c.PassThrough = &server.PassThrough{Clusters: []string{"*", "A"}} }, "passThrough.clusters[1]"},
		"a rule for users": {func(c *server.Config) {
			c.Identity = &server.Identity{UserRules: []server.IdentityRule{{From: "x", To: []string{"system:admin"}}}}
		}, "identity.userRules[0].to[0]"},
		"audit":           {func(c *server.Config) { c.Audit = &server.Audit{Webhook: &server.AuditWebhook{URL: "http://x"}} }, "audit.webhook.url"},
		"limits":          {func(c *server.Config) { c.Limits = &server.Limits{User: &server.Bounds{Burst: 1}} }, "limits.user.burst"},
		"header":          {func(c *server.Config) { c.HeaderBytes = 1 }, "headerBytes: 1 is less than 16384"},
		"debug elsewhere": {func(c *server.Config) { c.DebugListen = "0.0.0.0:0" }, "debugListen"},
		"traces":          {func(c *server.Config) { c.Telemetry = &server.Telemetry{OTLPEndpoint: "collector"} }, "telemetry.otlpEndpoint"},
	} {
		t.Run("V20: a bad setting is refused by its name: "+name, func(t *testing.T) {
			cfg := config(t)
			c.change(&cfg)
			s, err := server.New(t.Context(), cfg)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v does not say %s", err, c.want)
			}
		})
	}
}
