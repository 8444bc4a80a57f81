package policy

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// FuzzParse proves that whatever is accepted is accepted again in the form that
// it is written in, and means the same.
func FuzzParse(f *testing.F) {
	const head = "apiVersion: policy.culvert.dev/v1\nkind: Policy\n"
	for _, seed := range []string{
		"", head, head + "default: deny\n", head + "rules:\n- {name: a, effect: allow, users: ['*'], services: [{namespace: '*', name: b, port: 80}]}\n",
		head + "rules:\n- {name: a, effect: deny, clusters: {labels: {a: ''}}, kubernetes: [{verbs: [get], resources: ['*/scale']}, {nonResourceURLs: [/x*]}]}\n",
		head + "rules:\n- {name: a, effect: deny, tcp: [{hosts: ['*.x'], cidrs: [10.0.0.0/8], ports: [1-2, safe]}], impersonate: [{extraKeys: [a]}]}\n",
		head + "---\n", head + "rules: &a\n- *a\n", "<<: {}\n", "? {a: b}\n: c\n", head + "rules: !!binary aGk=\n", "\xff", "%TAG ! x\n---\n", "[[[[", "a: |\n  x\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text, Options{})
		if err != nil {
			if p != nil || strings.TrimSpace(err.Error()) == "" {
				t.Fatalf("policy %v with error %q", p, err)
			}
			return
		}
		out, err := p.Document().YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out, Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v\nbecame\n%+v", p.document, again.document)
		}
	})
}

// FuzzGlob compares with regular expressions.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"*", ""}, {"a*", "a"}, {"*a", "ba"}, {"a*b*c", "axbxc"}, {"a*a", "a"}, {"**", "x"}, {"*ab*ab*", "aabab"}, {"a.c", "abc"}, {"*.x", ".x"}, {"é*", "éa"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		g, err := newGlob(pattern)
		if err != nil || len(text) > 256 { // what it is compared with is slow
			return
		}
		want := regexp.MustCompile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `(?s:.*)`) + `\z`)
		if got := g.match(text); got != want.MatchString(text) && strings.ToValidUTF8(text, "") == text {
			t.Fatalf("%q matches %q: %v", pattern, text, got)
		}
		if !g.match(strings.ReplaceAll(pattern, wildcard, "")) || !g.match(pattern) {
			t.Fatalf("%q does not match itself", pattern)
		}
	})
}

// FuzzImport proves that whatever a list exposes becomes a policy that allows no
// more than services.
func FuzzImport(f *testing.F) {
	for _, seed := range []string{
		"- {namespace: a, service: b}", "kind: ConfigMap\ndata:\n  a: |\n    - namespace: a\n      service: b\n      port: 80\n      protocol: https\n",
		"kind: ConfigMap\n", "[]", "kind: ConfigMap\ndata: {a: '[]'}", "kind: ConfigMap\ndata: {a: 'x: *y'}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ImportOCM(text)
		if err != nil {
			return
		}
		for _, r := range d.Rules {
			if r.Effect != Allow || len(r.Kubernetes)+len(r.TCP)+len(r.Impersonate) > 0 {
				t.Fatalf("%+v", r)
			}
			for _, s := range r.Services {
				if strings.Contains(s.Namespace+s.Name+s.Port, wildcard) {
					t.Fatalf("%+v matches more than its names", s)
				}
			}
		}
		out, err := d.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(out, Options{Agent: true}); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}
