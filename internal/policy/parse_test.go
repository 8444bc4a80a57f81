package policy_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/policy"
)

func TestParse(t *testing.T) {
	const text = head + `default: deny
rules:
- name: all.of-it
  effect: allow
  users: [alice, "*@example.com"]
  groups: [ops]
  clusters:
    names: ["edge-*"]
    labels: {env: prod, empty: ""}
  kubernetes:
  - verbs: [get, list]
    apiGroups: ["", apps]
    resources: [pods, pods/log, "*/scale"]
    namespaces: [default]
    names: [web]
  - verbs: [get]
    nonResourceURLs: [/healthz*]
  services:
  - {namespace: default, name: web, port: 8443, scheme: https}
  tcp:
  - hosts: ["*.prod"]
    cidrs: [10.0.0.0/8, fd00::1]
    ports: [5432, "5900-6923", ssl]
  impersonate:
  - {users: [bob], groups: [dev], uids: ["7"], extraKeys: [scopes]}
`
	t.Run("every field is read, and written again", func(t *testing.T) {
		p, err := policy.Parse([]byte(text), policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := p.Document()
		if d.Rules[0].Services[0].Port != "8443" || d.Rules[0].TCP[0].Ports[0] != "5432" || d.Rules[0].Clusters.Labels["env"] != "prod" {
			t.Errorf("%+v", d)
		}
		// A field that is forgotten in the parser would be empty here.
		checkFilled(t, reflect.ValueOf(d), "document")
		out, err := d.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := policy.Parse(out, policy.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !reflect.DeepEqual(again.Document(), d) {
			t.Errorf("got %+v, want %+v", again.Document(), d)
		}
	})
	t.Run("a document from code is checked too", func(t *testing.T) {
		d := policy.Document{APIVersion: policy.APIVersion, Kind: policy.Kind, Rules: []policy.Rule{{Name: "a", Effect: "alow", Services: []policy.ServiceRule{{Namespace: "x"}}}}}
		_, err := policy.Compile(d, policy.Options{})
		want := "rules[0].effect: \"alow\", want \"allow\" or \"deny\"\nrules[0].services[0].name: required, \"*\" means all"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// checkFilled reports fields without a value.
func checkFilled(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path == "document.Rules.Kubernetes" || name == "Kubernetes" {
				continue // its fields exclude each other
			}
			checkFilled(t, v.Field(i), path+"."+name)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("%s is empty", path)
		}
		for i := range v.Len() {
			checkFilled(t, v.Index(i), path)
		}
	case reflect.Pointer:
		checkFilled(t, v.Elem(), path)
	default:
		if v.IsZero() {
			t.Errorf("%s is empty", path)
		}
	}
}

func TestRefused(t *testing.T) {
	rule := func(fields string) string { return head + "rules:\n- {name: a, effect: allow, " + fields + "}\n" }
	deny := func(fields string) string { return head + "rules:\n- {name: a, effect: deny, " + fields + "}\n" }
	const svc = "services: [{namespace: '*', name: '*'}]"
	tests := []struct{ name, text, want string }{
		{"nothing", "", "empty policy"},
		{"comment", "# nothing\n", "empty policy"},
		{"no YAML", head + "rules: [\n", "not valid YAML: line 3"},
		{"list", "- a\n", "policy: want fields"},
		{"no version", "kind: Policy\n", `apiVersion: required: "policy.culvert.dev/v1"`},
		{"other version", "apiVersion: policy.culvert.dev/v2\nkind: Policy\n", `line 1: apiVersion: "policy.culvert.dev/v2", want "policy.culvert.dev/v1"`},
		{"other kind", "apiVersion: policy.culvert.dev/v1\nkind: Pod\n", `line 2: kind: "Pod", want "Policy"`},
		{"second document", head + "---\nrules: []\n", "a second YAML document"},
		{"second document after an end", head + "...\n---\nrules: []\n", "a second YAML document"},
		{"more after an end", head + "...\nrules: []\n", "not valid YAML: line 3"},
		{"null", "~\n", "policy: empty"},
		{"unknown field", head + "rulez: []\n", "line 3: rulez: there is no such field, want one of apiVersion, kind, default, rules"},
		{"unknown field of a rule", head + "rules:\n- name: a\n  efect: deny\n", "line 5: rules[0].efect: there is no such field"},
		{"unknown field of a cluster", rule("clusters: {name: [x]}, " + svc), "rules[0].clusters.name: there is no such field, want one of names, labels"},
		{"unknown field of kubernetes", rule("kubernetes: [{verb: [get]}]"), "rules[0].kubernetes[0].verb: there is no such field"},
		{"unknown field of a service", rule("services: [{namespace: a, service: b}]"), "rules[0].services[0].service: there is no such field"},
		{"unknown field of tcp", rule("tcp: [{host: [a]}]"), "rules[0].tcp[0].host: there is no such field"},
		{"unknown field of impersonate", rule("impersonate: [{user: [a]}]"), "rules[0].impersonate[0].user: there is no such field"},
		{"case of a field", head + "Rules: []\n", "line 3: Rules: there is no such field"},
		{"field twice", head + "default: deny\ndefault: deny\n", "default: given twice"},
		{"merge key", head + "<<: {default: deny}\n", "<<: there is no such field"},
		{"alias", head + "rules:\n- {name: &x a, effect: allow, " + svc + "}\n", "rules[0].name: anchors and aliases are not supported"},
		{"field without a value", head + "rules:\n", "line 3: rules: empty, leave it out or give a value"},
		{"empty list", head + "rules: []\n", "line 3: rules: empty list"},
		{"empty list of users", rule("users: [], " + svc), "rules[0].users: empty list, leave the field out or name something"},
		{"empty user", rule("users: [''], " + svc), "rules[0].users[0]: empty"},
		{"null user", rule("users: [~], " + svc), "rules[0].users[0]: empty"},
		{"number for a user", rule("users: [007], " + svc), `rules[0].users[0]: want a text, put "007" in quotes`},
		{"true for a user", rule("users: [true], " + svc), `rules[0].users[0]: want a text, put "true" in quotes`},
		{"text for a list", rule("users: alice, " + svc), "rules[0].users: want a list"},
		{"list for a text", head + "default: [deny]\n", "line 3: default: want a text"},
		{"control character", rule(`users: ["a\nb"], ` + svc), "rules[0].users[0]: has a control character"},
		{"long text", rule("users: [" + strings.Repeat("a", 513) + "], " + svc), "rules[0].users[0]: 513 bytes, at most 512"},
		{"stars", rule("users: ['" + strings.Repeat("*a", 9) + "'], " + svc), "rules[0].users[0]: 9 \"*\" in one pattern, at most 8"},
		{"many entries", rule("users: [" + strings.Repeat("a,", 1025) + "], " + svc), "rules[0].users: 1025 entries, at most 1024"},
		{"many rules", head + "rules: [" + strings.Repeat("a,", 4097) + "]\n", "rules: 4097 entries, at most 4096"},
		{"large file", head + strings.Repeat("#", 1<<20), "at most 1048576 are allowed"},
		{"default allow", head + "default: allow\n", `line 3: default: "allow", want "kubernetes" or "deny"`},
		{"no name", head + "rules:\n- {effect: allow, " + svc + "}\n", "rules[0].name: required"},
		{"name", head + "rules:\n- {name: A b, effect: allow, " + svc + "}\n", `rules[0].name: "A b", only lower-case`},
		{"name of the default", head + "rules:\n- {name: (default), effect: allow, " + svc + "}\n", `rules[0].name: "(default)", only lower-case`},
		{"name twice", rule(svc) + "- {name: a, effect: deny, " + svc + "}\n", `line 5: rules[1].name: "a" is the name of rules[0] too`},
		{"no effect", head + "rules:\n- {name: a, " + svc + "}\n", `rules[0].effect: required: "allow" or "deny"`},
		{"no target", rule("users: [a]"), "rules[0]: says of nothing what is allowed or denied"},
		{"empty clusters", rule("clusters: {}, " + svc), "rules[0].clusters: want names or labels"},
		{"label twice", rule("clusters: {labels: {a: b, a: c}}, " + svc), `rules[0].clusters.labels[1]: label "a" given twice`},
		{"verb", rule("kubernetes: [{verbs: [read]}]"), `rules[0].kubernetes[0].verbs[0]: no request has the verb "read", want one of connect, create`},
		{"verb of a path", rule("kubernetes: [{verbs: [list], nonResourceURLs: [/x]}]"), `verbs[0]: no request has the verb "list", want one of connect, delete`},
		{"verb of a resource", rule("kubernetes: [{verbs: [post], resources: [pods]}]"), `verbs[0]: no request has the verb "post"`},
		{"upper case verb", rule("kubernetes: [{verbs: [GET]}]"), `no request has the verb "GET"`},
		{"all verbs and one", rule("kubernetes: [{verbs: [get, '*']}]"), `rules[0].kubernetes[0].verbs[1]: "*" means all verbs`},
		{"resources and paths", rule("kubernetes: [{resources: [pods], nonResourceURLs: [/x]}]"), "rules[0].kubernetes[0].nonResourceURLs: a request is for a resource or for another path"},
		{"relative path", rule("kubernetes: [{nonResourceURLs: [x]}]"), `nonResourceURLs[0]: "x", want a path that starts with '/'`},
		{"kind for a resource", rule("kubernetes: [{resources: [Pod]}]"), `rules[0].kubernetes[0].resources[0]: "Pod", want "pods"`},
		{"glob in a resource", rule("kubernetes: [{resources: ['po*']}]"), `resources[0]: "po*", want`},
		{"three parts", rule("kubernetes: [{resources: [a/b/c]}]"), `resources[0]: "a/b/c", want`},
		{"all subresources of all", rule("kubernetes: [{resources: ['*/*']}]"), `resources[0]: "*/*", write "*"`},
		{"service without a name", rule("services: [{namespace: a}]"), "rules[0].services[0].name: required"},
		{"service in upper case", rule("services: [{namespace: A, name: b}]"), `services[0].namespace: "A", only lower-case letters`},
		{"service with a dot", rule("services: [{namespace: a, name: 'b.*'}]"), `services[0].name: "b.*", only lower-case letters`},
		{"port with zeros", rule("services: [{namespace: a, name: b, port: '0443'}]"), `services[0].port: port: "0443" starts with 0`},
		{"port in octal", rule("services: [{namespace: a, name: b, port: 0443}]"), `services[0].port: port: "0443" starts with 0`},
		{"port 0", rule("services: [{namespace: a, name: b, port: 0}]"), `services[0].port: port: "0" starts with 0`},
		{"port too large", rule("services: [{namespace: a, name: b, port: 65536}]"), "services[0].port: port: \"65536\" is not between"},
		{"denied port by name", deny("services: [{namespace: a, name: b, port: metrics}]"), `services[0].port: "metrics" is a name, and the port could still be asked for by its number`},
		{"scheme", rule("services: [{namespace: a, name: b, scheme: tcp}]"), `services[0].scheme: "tcp", want "http" or "https"`},
		{"tcp of ports alone", rule("tcp: [{ports: [22]}]"), "rules[0].tcp[0]: want hosts or cidrs"},
		{"host in upper case", rule("tcp: [{hosts: [DB.prod]}]"), "tcp[0].hosts[0]: host: "},
		{"host with a final dot", rule("tcp: [{hosts: [db.prod.]}]"), "tcp[0].hosts[0]: host: "},
		{"host with a port", rule("tcp: [{hosts: ['db:22']}]"), "tcp[0].hosts[0]: host: "},
		{"address as a host", rule("tcp: [{hosts: [10.0.0.1]}]"), `tcp[0].hosts[0]: "10.0.0.1" looks like addresses, which cidrs are for`},
		{"glob of addresses", rule("tcp: [{hosts: ['10.*']}]"), `tcp[0].hosts[0]: "10.*" looks like addresses`},
		{"IPv6 as a host", rule("tcp: [{hosts: ['fd00::a']}]"), `tcp[0].hosts[0]: "fd00::a" is an address`},
		{"bits after the length", rule("tcp: [{cidrs: [10.0.0.1/8]}]"), `tcp[0].cidrs[0]: "10.0.0.1/8" has bits after its length, write 10.0.0.0/8`},
		{"mapped IPv4", rule("tcp: [{cidrs: ['::ffff:10.0.0.1']}]"), "tcp[0].cidrs[0]: \"::ffff:10.0.0.1\" is IPv4 written as IPv6, write 10.0.0.1"},
		{"zone", rule("tcp: [{cidrs: ['fe80::1%eth0']}]"), "tcp[0].cidrs[0]: has a zone"},
		{"name as a network", rule("tcp: [{cidrs: [db]}]"), `tcp[0].cidrs[0]: "db", want a network as 10.0.0.0/8`},
		{"octal address", rule("tcp: [{cidrs: [010.0.0.1]}]"), `tcp[0].cidrs[0]: "010.0.0.1", want a network`},
		{"set of ports", rule("tcp: [{hosts: ['*'], ports: [web]}]"), `tcp[0].ports[0]: "web", want a number, a range as 5900-6923, "*", or one of consoles, safe, ssl`},
		{"range of ports", rule("tcp: [{hosts: ['*'], ports: [9-8]}]"), `tcp[0].ports[0]: "9-8" is a range that ends before it starts`},
		{"impersonate nothing", rule("impersonate: [{}]"), "rules[0].impersonate[0]: want users, groups, uids or extraKeys"},
		{"escaped in the error", head + "\"a\\nb%s\": x\n", `a\nb%s: there is no such field`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.Parse([]byte(tt.text), policy.Options{})
			if err == nil {
				t.Fatalf("accepted: %+v", p.Document())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	t.Run("all problems are told at once", func(t *testing.T) {
		_, err := policy.Parse([]byte(head+"default: allow\nrules:\n- {name: a, effect: x, users: [a]}\n"), policy.Options{})
		if err == nil || strings.Count(err.Error(), "\n") != 2 {
			t.Errorf("%v", err)
		}
	})
	t.Run("but not endlessly", func(t *testing.T) {
		var text strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&text, "x%d: 1\n", i)
		}
		_, err := policy.Parse([]byte(text.String()), policy.Options{})
		if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.Contains(err.Error(), "and 980 more") {
			t.Errorf("%v", err)
		}
	})
	t.Run("N8: an agent's policy has nothing that an agent does not know", func(t *testing.T) {
		for text, want := range map[string]string{
			rule("clusters: {names: [a]}, " + svc): "rules[0].clusters: an agent serves one cluster",
			rule("impersonate: [{users: [a]}]"):    "rules[0].impersonate: decided at the hub",
		} {
			if _, err := policy.Parse([]byte(text), policy.Options{Agent: true}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			if _, err := policy.Parse([]byte(text), policy.Options{}); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestParsePorts(t *testing.T) {
	ports, err := policy.ParsePorts([]string{"consoles", "ssl", "8000-8001", "22"})
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]bool{5899: false, 5900: true, 6923: true, 6924: false, 443: true, 442: false, 8000: true, 8001: true, 8002: false, 22: true, 0: false, 65535: false} {
		if got := ports.Contains(port); got != want {
			t.Errorf("%d: %v", port, got)
		}
	}
	if got := ports.String(); got != "5900-6923,443,8000-8001,22" {
		t.Errorf("written as %q", got)
	}
	if (policy.Ports{}).Contains(443) {
		t.Error("the zero value has a port")
	}
	_, err = policy.ParsePorts([]string{"http", "443", "0", "70000", "2-1"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"[0]: ", "[2]: ", "[3]: ", "[4]: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
