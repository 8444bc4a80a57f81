package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/policy/review"
)

// docs is the documentation, from here.
const docs = "../../docs"

func readDocs(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPolicyDocs(t *testing.T) {
	examples, err := filepath.Abs(filepath.Join(docs, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	text := readDocs(t, "policy.md")
	shown := regexp.MustCompile("(?ms)^```\n\\$ culvert ([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(text, -1)
	if len(shown) < 6 {
		t.Fatalf("%d command lines: the fences are not read", len(shown))
	}
	for _, m := range shown {
		t.Run("what a command is shown to print, it prints: "+m[1], func(t *testing.T) {
			got := clitest.Run(t, examples, strings.Fields(m[1])...)
			if got.Stdout != m[2] || got.Stderr != "" {
				t.Errorf("got\n%s%s\nwant\n%s", got.Stdout, got.Stderr, m[2])
			}
			want := 0
			if strings.HasPrefix(m[2], "decision:  denied") {
				want = 6
			}
			if got.Code != want {
				t.Errorf("exit code %d, want %d", got.Code, want)
			}
		})
	}
	t.Run("the policy in the text is good", func(t *testing.T) {
		for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
			if _, err := policy.Parse([]byte(m[1]), policy.Options{}); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the roles of the example are of rights that are asked", func(t *testing.T) {
		role, binding, _ := strings.Cut(readDocs(t, "examples/policy-rbac.yaml"), "\n---\n")
		var r rbacv1.ClusterRole
		var b rbacv1.ClusterRoleBinding
		if err := errors.Join(yaml.UnmarshalStrict([]byte(role), &r), yaml.UnmarshalStrict([]byte(binding), &b)); err != nil {
			t.Fatal(err)
		}
		if b.RoleRef.Name != r.Name {
			t.Errorf("the binding is to %v, want the role %s", b.RoleRef, r.Name)
		}
		for _, rule := range r.Rules {
			for _, resource := range rule.Resources {
				if !strings.Contains(text, "`"+resource+"`") {
					t.Errorf("%s is not told", resource)
				}
			}
			if !slices.Contains([]string{review.Group, ""}, rule.APIGroups[0]) || len(rule.APIGroups) != 1 {
				t.Errorf("nothing is asked in %v", rule.APIGroups)
			}
		}
	})
	t.Run("every field is in an example and in the text", func(t *testing.T) {
		all := readDocs(t, "examples/policy-hub.yaml") + readDocs(t, "examples/policy-agent.yaml")
		for _, field := range []string{
			"default", "rules", "name", "effect", "users", "groups", "clusters", "names", "labels", "kubernetes", "verbs", "apiGroups", "resources", "namespaces",
			"services", "namespace", "port", "scheme", "tcp", "hosts", "cidrs", "ports", "impersonate",
		} {
			if !regexp.MustCompile(`[\s{]` + field + `:`).MatchString(all) {
				t.Errorf("%s is in no example", field)
			}
		}
		for _, field := range append(policyFields(t), policy.PortSets()...) {
			if !regexp.MustCompile("[`.\\]]" + field + "[`:]").MatchString(text) {
				t.Errorf("%s is not told", field)
			}
		}
	})
}

// policyFields asks the parser for the names that it knows.
func policyFields(t *testing.T) []string {
	t.Helper()
	_, err := policy.Parse([]byte("x: 1\nrules: [{x: 1, clusters: {x: 1}, kubernetes: [{x: 1}], services: [{x: 1}], tcp: [{x: 1}], impersonate: [{x: 1}]}]\n"), policy.Options{})
	if err == nil {
		t.Fatal("unknown fields are accepted")
	}
	var all []string
	for _, m := range regexp.MustCompile(`want one of (.*)`).FindAllStringSubmatch(err.Error(), -1) {
		all = append(all, strings.Split(m[1], ", ")...)
	}
	if len(all) < 30 {
		t.Fatalf("%v: %v", all, err)
	}
	return all
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.yaml":   "apiVersion: policy.culvert.dev/v1\nkind: Policy\nrules:\n- {name: web, effect: allow, users: [alice], services: [{namespace: default, name: web, port: 8443}]}\n- {name: as, effect: allow, impersonate: [{users: [bob]}]}\n- {name: net, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n",
		"bad.yaml":    "apiVersion: policy.culvert.dev/v1\nkind: Policy\nrules:\n- {name: web, effect: alow, services: [{namespace: default, nam: web}]}\n",
		"list.yaml":   "- {namespace: a, service: b, port: 80}\n",
		"nolist.yaml": "- {namespace: a}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	alice := []string{"policy", "test", "--policy", "good.yaml", "--cluster", "edge-1", "--user", "alice"}
	for _, tt := range []struct {
		name string
		args []string
		code int
		rule string
	}{
		{"K8: a service", []string{"--service", "default/web:8443"}, 0, "web"},
		{"K8: a service by its URL", []string{"--path", "/api/v1/namespaces/default/services/https:web:8443/proxy-service/x"}, 0, "web"},
		{"K8: another port", []string{"--service", "http:default/web:8080"}, 6, policy.RuleDefault},
		{"K8: a port's number that is not known", []string{"--service", "default/web:https"}, 6, policy.RuleDefault},
		{"K8: a port's number that is known", []string{"--service", "default/web:https", "--port-number", "8443"}, 0, "web"},
		{"V20: the Kubernetes API", []string{"--path", "/api/v1/pods?watch=1", "--verb", "watch"}, 0, policy.RuleDefault},
		{"V20: another path of it", []string{"--path", "/metrics", "--verb", "post"}, 0, policy.RuleDefault},
		{"N8: a name that may be denied", []string{"--tcp", "db:22"}, 6, "net"},
		{"N8: a name that is not denied and not allowed", []string{"--tcp", "db:22", "--address", "11.0.0.1", "--address", "fd00::1"}, 6, policy.RuleDefault},
		{"N9: a user", []string{"--as", "bob"}, 0, "as"},
		{"N9: a user and a group", []string{"--as", "bob", "--as-group", "ops"}, 6, policy.RuleDefault},
		{"N9: a UID", []string{"--as-uid", "7"}, 6, policy.RuleDefault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, form := range []string{"json", "yaml"} {
				got := clitest.Run(t, dir, slices.Concat(alice, tt.args, []string{"-o", form})...)
				var said explained
				decode := func(text []byte, into any) error { return yaml.Unmarshal(text, into) }
				if form == "json" {
					decode = json.Unmarshal
				}
				if err := decode([]byte(got.Stdout), &said); err != nil {
					t.Fatalf("%v: %+v", err, got)
				}
				if got.Code != tt.code || said.Rule != tt.rule || said.Allowed != (tt.code == 0) || said.Reason == "" || len(said.Rules) != 3 {
					t.Errorf("%+v", got)
				}
			}
		})
	}
	t.Run("K8: a list is imported from standard input too", func(t *testing.T) {
		cmd := clitest.Command(t.Context(), dir, "policy", "import-ocm", "-")
		cmd.Stdin = strings.NewReader("- {namespace: a, service: b, port: 80}\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := clitest.Run(t, dir, "policy", "import-ocm", "list.yaml"); got.Stdout != string(out) || got.Code != 0 {
			t.Errorf("%+v, from standard input %s", got, out)
		}
		if _, err := policy.Parse(out, policy.Options{Agent: true}); err != nil {
			t.Error(err)
		}
	})
	with := func(args ...string) []string { return slices.Concat(alice, args) }
	clitest.Refuses(t, dir, "culvert", []clitest.Failure{
		clitest.Fails("check of nothing", []string{"policy", "check"}, "--policy: required"),
		clitest.Fails("check of a file that is not there", []string{"policy", "check", "--policy", "no.yaml"}, "--policy: open no.yaml: no such file"),
		clitest.Fails("check of a bad policy", []string{"policy", "check", "--policy", "bad.yaml"}, "--policy bad.yaml: line 4: rules[0].services[0].nam: there is no such field"),
		clitest.Fails("hub's policy for an agent", []string{"policy", "check", "--policy", "good.yaml", "--agent"}, "line 5: rules[1].impersonate: decided at the hub"),
		clitest.Fails("nothing asked", with(), "--path, --service, --tcp, --as: give one of them"),
		clitest.Fails("two things asked", with("--tcp", "a:1", "--as", "bob"), "give one of them"),
		clitest.Fails("nobody asks", []string{"policy", "test", "--policy", "good.yaml", "--as", "bob"}, "--user: required", "--cluster: empty"),
		clitest.Fails("form of the result", with("--as", "bob", "-o", "xml"), "--output"),
		clitest.Fails("relative path", with("--path", "api"), `--path: "api" does not start with '/'`),
		clitest.Fails("climbing path", with("--path", "/api/../x"), "--path: "),
		clitest.Fails("path that nothing reads", with("--path", "/api/v1/watch"), "--path: read path"),
		clitest.Fails("verb of another path", with("--path", "/api/v1/pods", "--verb", "get"), `has the verb "list", not "get"`),
		clitest.Fails("service without a namespace", with("--service", "web"), "--service: ", "namespace/name"),
		clitest.Fails("service that is none", with("--service", "default/WEB"), "--service: service: "),
		clitest.Fails("target without a port", with("--tcp", "db"), "--tcp: address: "),
		clitest.Fails("address that is none", with("--tcp", "db:1", "--address", "x"), `--address: "x" is no IP address`),
		clitest.Fails("import of nothing", []string{"policy", "import-ocm"}, "want one argument, the file"),
		clitest.Fails("import of no list", []string{"policy", "import-ocm", "nolist.yaml"}, "nolist.yaml: line 1: entries[0]: namespace and service are required"),
	})
}
