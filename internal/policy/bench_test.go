package policy_test

import (
	"fmt"
	"testing"

	"github.com/culvertdev/culvert/internal/policy"
)

// manyRules are of a team each, as a fleet has them, and one in ten is for all.
func manyRules(n int) policy.Document {
	d := policy.Document{APIVersion: policy.APIVersion, Kind: policy.Kind}
	for i := range n {
		r := policy.Rule{
			Name: fmt.Sprintf("team-%d", i), Effect: policy.Allow, Groups: []string{fmt.Sprintf("team-%d", i)},
			Clusters:   &policy.ClusterRule{Names: []string{fmt.Sprintf("team-%d-*", i)}},
			Kubernetes: []policy.KubernetesRule{{Verbs: []string{"get", "list", "watch"}, Resources: []string{"pods", "pods/log"}}},
			Services:   []policy.ServiceRule{{Namespace: fmt.Sprintf("team-%d", i), Name: "*"}},
		}
		if i%10 == 0 {
			r.Effect, r.Groups = policy.Deny, []string{"*"}
			r.Kubernetes = []policy.KubernetesRule{{Namespaces: []string{fmt.Sprintf("secret-%d-*", i)}}}
		}
		d.Rules = append(d.Rules, r)
	}
	return d
}

func benchmarkRequest(tb testing.TB) policy.Request {
	tb.Helper()
	r := sent(tb, "GET", "/api/v1/namespaces/team-7/pods/web", "")
	r.User = who("alice", "system:authenticated", "team-7", "team-21", "everybody")
	r.Cluster.Name = "team-7-edge"
	return r
}

func BenchmarkDecide(b *testing.B) {
	for _, rules := range []int{0, 10, 100, 500, 2000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			p, r := compile(b, manyRules(rules)), benchmarkRequest(b)
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(r).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkAttributes(b *testing.B) {
	for name, target := range map[string][2]string{
		"get":   {"/api/v1/namespaces/team-7/pods/web", ""},
		"list":  {"/api/v1/namespaces/team-7/pods", "limit=500"},
		"other": {"/healthz", ""},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := policy.Attributes(nil, "GET", target[0], target[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	t.Run("a decision that allows does not allocate, however many rules there are", func(t *testing.T) {
		p := compile(t, manyRules(1000))
		kubernetes, service := benchmarkRequest(t), base()
		service.User, service.Cluster.Name = who("alice", "team-7"), "team-7-edge"
		service.Service = &policy.ServiceTarget{Namespace: "team-7", Name: "web", Port: "443", Scheme: "https"}
		for name, r := range map[string]policy.Request{"kubernetes": kubernetes, "service": service} {
			if n := testing.AllocsPerRun(100, func() {
				if !p.Decide(r).Allowed {
					t.Fatal("denied")
				}
			}); n > 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	})
}
