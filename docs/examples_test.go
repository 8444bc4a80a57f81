package docs_test

import (
	"errors"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/server"
)

func TestExamples(t *testing.T) {
	t.Run("the hub's example is a valid configuration", func(t *testing.T) {
		var cfg server.Config
		if err := yaml.UnmarshalStrict([]byte(read(t, "examples/hub.yaml")), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	})
	t.Run("the agent's example is a valid configuration", func(t *testing.T) {
		var cfg agent.Config
		if err := yaml.UnmarshalStrict([]byte(read(t, "examples/agent.yaml")), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	})
	t.Run("what an example has in comments is a field too", func(t *testing.T) {
		for file, fields := range map[string][]string{
			"examples/hub.yaml":   fieldsOf(reflect.TypeFor[server.Config](), ""),
			"examples/agent.yaml": fieldsOf(reflect.TypeFor[agent.Config](), ""),
		} {
			text := read(t, file)
			for _, field := range fields {
				leaf := field[strings.LastIndex(field, ".")+1:]
				if !regexp.MustCompile(`(?m)^[# -]*(.*: )?` + leaf + `:`).MatchString(text) {
					t.Errorf("%s: the field %s is not shown", file, field)
				}
			}
			for _, m := range regexp.MustCompile(`(?m)^# ([a-z][A-Za-z]*):( |$)`).FindAllStringSubmatch(text, -1) {
				block := func(field string) bool { return strings.HasPrefix(field, m[1]+".") }
				if !slices.Contains(fields, m[1]) && !slices.ContainsFunc(fields, block) {
					t.Errorf("%s: %s is no field", file, m[1])
				}
			}
		}
	})
	t.Run("N9: the agent's account may impersonate and nothing else", func(t *testing.T) {
		legacy := func(verb string) bool { return verb == "impersonate" }
		checkAccount(t, read(t, "examples/agent-rbac.yaml"), legacy)
		limited := checkAccount(t, read(t, "examples/agent-rbac-limited.yaml"), legacy)
		for _, rule := range limited {
			if slices.Contains(rule.APIGroups, "") && len(rule.ResourceNames) == 0 {
				t.Errorf("rule %v names nobody, so it is for everybody", rule)
			}
		}
		checkAccount(t, read(t, "examples/agent-rbac-constrained.yaml"), func(verb string) bool {
			return verb == "impersonate:user-info" || strings.HasPrefix(verb, "impersonate-on:user-info:")
		})
	})
}

// checkAccount holds the manifest of an agent's account against the types of
// Kubernetes, and its parts against each other, and returns the rules, which have
// no other verbs than those that impersonates knows.
func checkAccount(t *testing.T, manifest string, impersonates func(verb string) bool) []rbacv1.PolicyRule {
	t.Helper()
	var namespace corev1.Namespace
	var account corev1.ServiceAccount
	var role rbacv1.ClusterRole
	var binding rbacv1.ClusterRoleBinding
	objects := map[string]any{"Namespace": &namespace, "ServiceAccount": &account, "ClusterRole": &role, "ClusterRoleBinding": &binding}
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(manifest)))
	defer func() { _ = documents.Close() }()
	for {
		document := make([]byte, 64<<10)
		n, err := documents.Read(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document[:n], &kind); err != nil {
			t.Fatal(err)
		}
		if objects[kind.Kind] == nil {
			t.Fatalf("%q is there twice, or not of an agent's account", kind.Kind)
		}
		if err := yaml.UnmarshalStrict(document[:n], objects[kind.Kind]); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		delete(objects, kind.Kind)
	}
	if len(objects) > 0 {
		t.Errorf("missing: %v", objects)
	}
	for _, rule := range role.Rules {
		if len(rule.Verbs) == 0 || slices.ContainsFunc(rule.Verbs, func(verb string) bool { return !impersonates(verb) }) {
			t.Errorf("rule %v allows more than to impersonate", rule)
		}
	}
	if len(role.Rules) == 0 || binding.RoleRef.Kind != "ClusterRole" || binding.RoleRef.Name != role.Name {
		t.Errorf("the binding is to %v, want the role %s with rules", binding.RoleRef, role.Name)
	}
	want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}
	if !slices.Equal(binding.Subjects, want) || account.Namespace != namespace.Name {
		t.Errorf("the binding is for %v, want %v in %s", binding.Subjects, want, namespace.Name)
	}
	return role.Rules
}
