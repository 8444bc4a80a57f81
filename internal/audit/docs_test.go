package audit

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// examples are the events whose lines the documentation shows.
func examples() []string {
	at := time.Date(2026, 3, 2, 9, 14, 7, 412_803_000, time.UTC)
	request := &Event{
		Stage: StageRequest, Start: at.Add(-18214 * time.Microsecond),
		RequestID: "MXJ3TC4Y7LHWQ2KDV5ZB6NSAEU", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		User: Identity{
			Name: "system:serviceaccount:default:ci", UID: "0b1c1c5e-8f0e-4f3c-9a48-0c7a8a0d6a11",
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
		},
		Authentication: "token-review",
		ClusterUser: Identity{
			Name: "cluster:hub:system:serviceaccount:default:ci", UID: "0b1c1c5e-8f0e-4f3c-9a48-0c7a8a0d6a11",
			Groups: []string{"cluster:hub:system:serviceaccounts", "cluster:hub:system:serviceaccounts:default", "cluster:hub:system:authenticated"},
		},
		Source: "192.0.2.7:51324", Hub: "hub-0", Cluster: "edge-1", Agent: "edge-1-6f9c", Target: "kubernetes",
		Method: "GET", Path: "/clusters/edge-1/api/v1/namespaces/default/pods?limit=500", Verb: "list", APIVersion: "v1",
		Resource: "pods", Namespace: "default", Verdict: Allow, Rule: "default",
		Status: 200, Sent: 48211, End: EndCompleted,
	}
	denied := &Event{
		Stage: StageRequest, Start: at.Add(1200*time.Millisecond - 391*time.Microsecond), RequestID: "QDLW5ZK3JXT7N2VHYF4RAC6PME",
		User: Identity{Name: "alice", Groups: []string{"dev", "system:authenticated"}}, Authentication: "oidc",
		Impersonated: Identity{Name: "admin"}, Source: "[2001:db8::17]:40112", Hub: "hub-0", Cluster: "edge-1", Target: "kubernetes",
		Method: "DELETE", Path: "/clusters/edge-1/apis/apps/v1/namespaces/prod/deployments/web", Verb: "delete",
		APIGroup: "apps", APIVersion: "v1", Resource: "deployments", Namespace: "prod", Name: "web",
		Verdict: Deny, Rule: "no-impersonation", Reason: "alice may not act as admin", Status: 403, Hop: "hub", Code: "permission-denied",
		Error: "hub: policy: permission denied: rule no-impersonation: alice may not act as admin", Sent: 412, End: "permission-denied",
	}
	session := &Event{
		Start: at.Add(time.Minute), RequestID: "T6VJ2QXWKR5YHN3FZC7LDMABSE", SessionID: "HZ4NKYD6PQ2WLTX7VAJ3RMCE5F",
		User: Identity{Name: "alice", Groups: []string{"dev", "system:authenticated"}}, Authentication: "client-certificate",
		ClusterUser: Identity{Name: "cluster:hub:alice", Groups: []string{"cluster:hub:dev", "cluster:hub:system:authenticated"}},
		Source:      "192.0.2.9:50211", Hub: "hub-0", Cluster: "edge-1", Agent: "edge-1-6f9c", Target: "kubernetes",
		Method: "POST", Path: "/clusters/edge-1/api/v1/namespaces/default/pods/web-0/exec", Verb: "create", APIVersion: "v1",
		Resource: "pods", Subresource: "exec", Namespace: "default", Name: "web-0", Verdict: Allow, Rule: "dev-exec", Status: 101,
	}
	line := func(e *Event, at time.Time) string { return string(appendEvent(nil, e, at)) }
	lines := []string{line(request, at), line(denied, at.Add(1200*time.Millisecond))}
	session.Stage = StageSessionStart
	lines = append(lines, line(session, session.Start.Add(31*time.Millisecond)))
	session.Stage, session.Received, session.Sent = StageSessionInterval, 180, 25031
	lines = append(lines, line(session, session.Start.Add(31*time.Millisecond+DefaultInterval)))
	session.Stage, session.Received, session.Sent, session.End = StageSessionEnd, 212, 31877, EndCompleted
	lines = append(lines, string(appendMissed([]byte(line(session, session.Start.Add(412*time.Second))), 3)))
	return lines
}

// fence finds the blocks of one language in a document.
func fence(text, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

var (
	fieldRow  = regexp.MustCompile("(?m)^\\| ((?:`[A-Za-z]+`(?:, )?)+) \\|")
	fieldName = regexp.MustCompile("`([A-Za-z]+)`")
)

func TestDocumentation(t *testing.T) {
	content, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	_, fields, _ := strings.Cut(text, "\n## Fields\n")
	fields, _, _ = strings.Cut(fields, "\n## ")
	t.Run("N11: the documented fields are those of a line, in its order", func(t *testing.T) {
		var documented []string
		for _, row := range fieldRow.FindAllStringSubmatch(fields, -1) {
			for _, m := range fieldName.FindAllStringSubmatch(row[1], -1) {
				documented = append(documented, m[1])
			}
		}
		e := &Event{Start: noon, Status: 1}
		fill(e, "x")
		e.User.Groups = slices.Repeat([]string{strings.Repeat("g", 200)}, 100)
		written := members(t, appendMissed(appendEvent(nil, e, noon), 1))
		if !slices.Equal(documented, written) {
			t.Errorf("documented\n%q\nwritten\n%q", documented, written)
		}
	})
	t.Run("N11: the documented lines are those of the program, one of each stage", func(t *testing.T) {
		want := strings.Join(examples(), "")
		if got := strings.Join(fence(text, "json"), ""); got != want {
			t.Errorf("the document has\n%s\nwant\n%s", got, want)
		}
		for _, stage := range []Stage{StageRequest, StageSessionStart, StageSessionInterval, StageSessionEnd} {
			if !strings.Contains(want, `"stage":"`+string(stage)+`"`) || !strings.Contains(text, "`"+string(stage)+"`") {
				t.Errorf("stage %s is not shown", stage)
			}
		}
	})
	t.Run("the documented settings are valid, and have every field", func(t *testing.T) {
		var all struct {
			Audit Config `json:"audit"`
		}
		blocks := strings.Join(fence(text, "yaml"), "")
		if err := yaml.UnmarshalStrict([]byte(blocks), &all); err != nil {
			t.Fatal(err)
		}
		if err := all.Audit.Validate(); err != nil {
			t.Error(err)
		}
		for _, typ := range []reflect.Type{
			reflect.TypeFor[Config](), reflect.TypeFor[FileConfig](), reflect.TypeFor[StdoutConfig](), reflect.TypeFor[WebhookConfig](),
		} {
			for field := range typ.Fields() {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				if !regexp.MustCompile(`(?m)(^|[ {])` + name + ":").MatchString(blocks) {
					t.Errorf("%s of %s is not shown", name, typ.Name())
				}
			}
		}
	})
	t.Run("the metrics are named", func(t *testing.T) {
		for _, name := range []string{
			"culvert_audit_events_total", "culvert_audit_dropped_total", "culvert_audit_write_failures_total", "culvert_audit_queue_bytes",
		} {
			if !strings.Contains(text, "`"+name) {
				t.Errorf("%s is missing", name)
			}
		}
	})
}

// members returns the names of all members of a line, those of the users once.
func members(t *testing.T, l []byte) []string {
	t.Helper()
	var found []string
	dec := json.NewDecoder(strings.NewReader(string(l)))
	depth, isName := 0, false
	for {
		token, err := dec.Token()
		if err != nil {
			return found
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
			isName = v != '['
			if v == '[' {
				for dec.More() {
					if _, err := dec.Token(); err != nil {
						t.Fatal(err)
					}
				}
			}
		case string:
			if isName && depth == 1 {
				found = append(found, v)
			}
			isName = !isName
		default:
			isName = true
		}
	}
}
