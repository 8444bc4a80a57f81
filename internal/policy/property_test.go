package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/culvertdev/culvert/internal/policy"
)

// pick returns one of choices.
func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// some returns none, one or two of choices.
func some(r *rand.Rand, choices ...string) []string {
	var all []string
	for range r.IntN(3) {
		all = append(all, pick(r, choices...))
	}
	return all
}

// randomRule makes rules of few words, so that many match.
func randomRule(r *rand.Rand, i int) policy.Rule {
	rule := policy.Rule{
		Name: fmt.Sprintf("r%d", i), Effect: pick(r, policy.Allow, policy.Allow, policy.Deny),
		Users: some(r, "alice", "bob", "a*", "*"), Groups: some(r, "dev", "ops", "o*"),
	}
	if r.IntN(3) == 0 {
		rule.Clusters = &policy.ClusterRule{Names: some(r, "edge-1", "edge-*", "hub"), Labels: map[string]string{"env": pick(r, "prod", "p*", "test")}}
	}
	for range 1 + r.IntN(3) {
		switch r.IntN(5) {
		case 0:
			rule.Kubernetes = append(rule.Kubernetes, policy.KubernetesRule{
				Verbs: some(r, "get", "list", "create"), APIGroups: some(r, "", "apps", "a*"), Resources: some(r, "pods", "pods/log", "*", "*/scale", "nodes"),
				Namespaces: some(r, "default", "kube-*"), Names: some(r, "web", "w*"),
			})
		case 1:
			rule.Kubernetes = append(rule.Kubernetes, policy.KubernetesRule{Verbs: some(r, "get", "post"), NonResourceURLs: []string{pick(r, "/metrics", "/h*", "*")}})
		case 2:
			rule.Services = append(rule.Services, policy.ServiceRule{
				Namespace: pick(r, "*", "default", "d*"), Name: pick(r, "*", "web"), Port: pick(r, "", "443", "8443"), Scheme: pick(r, "", "https"),
			})
		case 3:
			rule.TCP = append(rule.TCP, policy.TCPRule{
				Hosts: append(some(r, "db", "*.prod"), pick(r, "*", "db")), CIDRs: some(r, "10.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "::/0"), Ports: some(r, "22", "1-1024", "safe"),
			})
		default:
			rule.Impersonate = append(rule.Impersonate, policy.ImpersonateRule{Users: append(some(r, "bob"), pick(r, "b*", "carol")), Groups: some(r, "ops", "*")})
		}
	}
	return rule
}

func randomRequest(r *rand.Rand) policy.Request {
	u := &user.DefaultInfo{Name: pick(r, "alice", "bob", "carol"), Groups: some(r, "dev", "ops", "x")}
	q := policy.Request{
		User: u, UserUnknown: r.IntN(8) == 0, Early: r.IntN(4) == 0,
		Cluster: policy.Cluster{Name: pick(r, "edge-1", "edge-2", "hub"), Labels: pick(r, nil, map[string]string{"env": "prod"}, map[string]string{"env": "test"})},
	}
	switch r.IntN(5) {
	case 0:
		q.Kubernetes = authorizer.AttributesRecord{
			ResourceRequest: true, Verb: pick(r, "get", "list", "create"), APIGroup: pick(r, "", "apps"), Resource: pick(r, "pods", "nodes"),
			Subresource: pick(r, "", "log", "scale"), Namespace: pick(r, "", "default", "kube-system"), Name: pick(r, "", "web", "x"),
		}
	case 1:
		q.Kubernetes = authorizer.AttributesRecord{Verb: pick(r, "get", "post"), Path: pick(r, "/metrics", "/healthz", "/")}
	case 2:
		q.Service = &policy.ServiceTarget{Namespace: pick(r, "default", "x"), Name: pick(r, "web", "x"), Port: pick(r, "", "443", "8443", "http"), Scheme: pick(r, "", "http", "https")}
	case 3:
		q.TCP = &policy.TCPTarget{Host: pick(r, "db", "db.prod", "10.0.0.1", "127.0.0.1"), Port: pick[uint16](r, 22, 443, 5432)}
		if r.IntN(2) == 0 {
			q.TCP.Addresses = []netip.Addr{netip.MustParseAddr(pick(r, "10.0.0.1", "11.0.0.1", "127.0.0.1", "64:ff9b::a00:1"))}
		}
	default:
		q.Impersonate = &policy.Impersonation{User: pick(r, "bob", "carol"), Groups: some(r, "ops", "dev")}
	}
	return q
}

func randomDocument(r *rand.Rand, rules int) policy.Document {
	d := policy.Document{APIVersion: policy.APIVersion, Kind: policy.Kind, Default: pick(r, policy.DefaultKubernetes, policy.DefaultDeny)}
	for i := range rules {
		d.Rules = append(d.Rules, randomRule(r, i))
	}
	return d
}

func compile(t testing.TB, d policy.Document) *policy.Policy {
	t.Helper()
	p, err := policy.Compile(d, policy.Options{})
	if err != nil {
		t.Fatalf("%v\n%+v", err, d)
	}
	return p
}

func TestProperties(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const policies, requests = 300, 60
	t.Run("the order of rules does not matter", func(t *testing.T) {
		for range policies {
			d := randomDocument(r, r.IntN(8))
			p := compile(t, d)
			shuffled := d
			shuffled.Rules = slices.Clone(d.Rules)
			r.Shuffle(len(d.Rules), func(i, j int) { shuffled.Rules[i], shuffled.Rules[j] = shuffled.Rules[j], shuffled.Rules[i] })
			other := compile(t, shuffled)
			for range requests {
				q := randomRequest(r)
				if a, b := p.Decide(q), other.Decide(q); a.Allowed != b.Allowed {
					t.Fatalf("%+v\n%+v\n%+v\n%+v", a, b, d, q)
				}
			}
		}
	})
	t.Run("a deny wins: one more never allows more, one more allow never denies more", func(t *testing.T) {
		for range policies {
			d := randomDocument(r, r.IntN(8))
			more := d
			extra := randomRule(r, 99)
			more.Rules = append(slices.Clone(d.Rules), extra)
			p, with := compile(t, d), compile(t, more)
			for range requests {
				q := randomRequest(r)
				a, b := p.Decide(q), with.Decide(q)
				if extra.Effect == policy.Deny && b.Allowed && !a.Allowed || extra.Effect == policy.Allow && a.Allowed && !b.Allowed {
					t.Fatalf("%+v\n%+v\n%+v\n%+v", a, b, more, q)
				}
			}
		}
	})
	t.Run("the decision is what its explanation says of the rules", func(t *testing.T) {
		decided := map[string]int{}
		for range policies {
			d := randomDocument(r, 1+r.IntN(8))
			p := compile(t, d)
			for range requests {
				q := randomRequest(r)
				e := p.Explain(q)
				if e.Decision != p.Decide(q) {
					t.Fatalf("%+v", e)
				}
				decided[e.Rule[:1]+fmt.Sprint(e.Allowed)]++
				if e.Rule == policy.RuleInvalid || q.Impersonate != nil {
					continue // parts of an impersonation are decided one by one
				}
				checkExplanation(t, d, q, e)
			}
		}
		if decided["rtrue"] < 100 || decided["rfalse"] < 100 || decided["(true"] < 100 || decided["(false"] < 100 {
			t.Errorf("the requests do not try everything: %v", decided)
		}
	})
	t.Run("whoever may reach a target may reach something", func(t *testing.T) {
		reached := 0
		for range policies {
			p := compile(t, randomDocument(r, 1+r.IntN(8)))
			for range requests {
				q := randomRequest(r)
				if q.Impersonate != nil || q.UserUnknown || !p.Decide(q).Allowed {
					continue
				}
				reached++
				something := policy.Request{User: q.User, Cluster: q.Cluster, Anything: true}
				if d := p.Explain(something); !d.Allowed {
					t.Fatalf("%+v\n%+v\n%+v", d, p.Document(), q)
				}
			}
		}
		if reached < 100 {
			t.Errorf("%d targets were reached", reached)
		}
	})
	t.Run("what is looked at early can only be refused", func(t *testing.T) {
		for range policies {
			p := compile(t, randomDocument(r, 1+r.IntN(8)))
			for range requests {
				q := randomRequest(r)
				if q.TCP == nil || strings.ContainsAny(q.TCP.Host, "1") {
					continue
				}
				q.Early, q.TCP.Addresses = true, nil
				early := p.Decide(q)
				for _, a := range []string{"10.0.0.1", "11.0.0.1", "127.0.0.1", "fd00::1"} {
					q.Early, q.TCP.Addresses = false, []netip.Addr{netip.MustParseAddr(a)}
					if late := p.Decide(q); late.Allowed && !early.Allowed {
						t.Fatalf("%+v\n%+v\n%+v", early, late, p.Document())
					}
				}
			}
		}
	})
}

// checkExplanation holds a decision against the rules, without an index.
func checkExplanation(t *testing.T, d policy.Document, q policy.Request, e policy.Explanation) {
	t.Helper()
	denied := slices.IndexFunc(e.Rules, func(o policy.RuleOutcome) bool { return o.Matches && o.Effect == policy.Deny })
	allowed := slices.IndexFunc(e.Rules, func(o policy.RuleOutcome) bool { return o.Matches && o.Effect == policy.Allow })
	want := policy.Decision{Allowed: d.Default == policy.DefaultKubernetes && q.Kubernetes != nil, Rule: policy.RuleDefault}
	switch {
	case denied >= 0:
		want = policy.Decision{Rule: e.Rules[denied].Name}
	case allowed >= 0:
		want = policy.Decision{Allowed: true, Rule: e.Rules[allowed].Name}
	}
	if e.Allowed != want.Allowed || e.Rule != want.Rule {
		t.Fatalf("got %+v, want %+v\n%+v\n%+v", e, want, d, q)
	}
}
