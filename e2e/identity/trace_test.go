package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestTrace(t *testing.T) {
	ctx := within(t, time.Minute)
	t.Run("N11: one kubectl get is one trace over hub, agent and API server", func(t *testing.T) {
		since := time.Now()
		if out, err := the.kubectl(t, "managed", the.ada).Run(ctx, "-n", "work", "get", "configmap", "first", "-o", "name"); err != nil || out != "configmap/first\n" {
			t.Fatal(out, err)
		}
		lines := awaitLines(ctx, t, "its audit line", func(l line) bool {
			return l.Verb == "get" && l.Name == "first" && l.User.Name == "ada" && l.Time.After(since)
		}, func(l []line) bool { return len(l) == 1 })
		spans := hops(ctx, t, lines[0].TraceID)
		t.Logf("trace %s:\n%s", lines[0].TraceID, testbed.TraceText(spans))
		hub, agent := first(spans, "culvert-hub", "server"), first(spans, "culvert-agent", "server")
		api := first(spans, "kube-apiserver", "server")
		if hub.SpanID == "" || agent.SpanID == "" || api.SpanID == "" || hub.TraceID != agent.TraceID {
			t.Fatalf("hub %+v\nagent %+v\nAPI server %+v", hub, agent, api)
		}
		if hub.ParentID != "" {
			t.Errorf("kubectl has no trace of its own, but the hub's span has a parent: %+v", hub)
		}
		if hub.Failed || agent.Failed {
			t.Errorf("failed: %+v %+v", hub, agent)
		}
		for _, s := range []testbed.Span{hub, agent} {
			for name, value := range s.Attributes {
				if strings.Contains(value, the.ada) || strings.Contains(name, "user") && strings.Contains(name, "end") {
					t.Errorf("%s has %s: %s", s.Service, name, value)
				}
			}
		}
	})
	t.Run("N11: a caller's own trace goes on through hub and agent to the API server", func(t *testing.T) {
		got, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: the.ada})
		must(t, err)
		spans := hops(ctx, t, got.trace)
		if hub := first(spans, "culvert-hub", "server"); hub.ParentID == "" {
			t.Errorf("the hub's span has no parent: %+v", hub)
		}
	})
}

// hops waits until a trace has spans of the hub and of the agent, the agent's below the
// hub's, and one of the API server belongs to it. Spans come as they end, in no order. The API server begins a trace of its own for callers
// that are not of its own system, and links it (k8s.io/apiserver WithTracing).
func hops(ctx context.Context, t *testing.T, id string) []testbed.Span {
	t.Helper()
	var spans []testbed.Span
	must(t, testbed.Poll(ctx, "the spans of trace "+id, func(context.Context) error {
		spans = the.traces.Find(func(s testbed.Span) bool { return s.TraceID == id || slices.Contains(s.Links, id) })
		for _, service := range []string{"culvert-hub", "culvert-agent", "kube-apiserver"} {
			if first(spans, service, "server").SpanID == "" {
				return fmt.Errorf("none of %s:\n%s", service, testbed.TraceText(spans))
			}
		}
		if !leadsTo(spans, first(spans, "culvert-agent", "server"), first(spans, "culvert-hub", "server")) {
			return fmt.Errorf("the agent's span does not lead to the hub's:\n%s", testbed.TraceText(spans))
		}
		return nil
	}))
	return spans
}

// first is the first span of a service of a kind; the zero Span where there is
// none. API servers' names end with an instance.
func first(spans []testbed.Span, service, kind string) testbed.Span {
	for _, s := range spans {
		if (s.Service == service || service == "kube-apiserver" && strings.Contains(s.Service, "apiserver")) && s.Kind == kind {
			return s
		}
	}
	return testbed.Span{}
}

// leadsTo tells whether ancestor is above s.
func leadsTo(spans []testbed.Span, s, ancestor testbed.Span) bool {
	for s.ParentID != "" {
		if s.ParentID == ancestor.SpanID {
			return true
		}
		i := slices.IndexFunc(spans, func(o testbed.Span) bool { return o.SpanID == s.ParentID })
		if i < 0 {
			return false
		}
		s = spans[i]
	}
	return false
}
