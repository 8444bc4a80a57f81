package identity

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

func TestRules(t *testing.T) {
	cfg := Config{
		UserRules: []Rule{
			{"oidc:root", []string{"nobody-special"}}, {"oidc:*@corp.example", []string{"corp:*"}}, {"robot-*", []string{"robot"}},
			{"free:*", []string{"*"}}, {"half:*", []string{"cluster:*"}}, {"said:*", []string{"cluster:hub:*"}},
		},
		GroupRules: []Rule{
			{"k8s:*", []string{"corp:*", "everybody"}}, {"mail", nil}, {"free:*", []string{"*"}}, {"system:serviceaccounts", []string{"robots"}},
		},
		DeniedGroups: []string{"system:masters", "secret-*", "*-guests"},
		CarryExtra:   []string{"example.com/*", "plain"},
		SetExtra:     map[string][]string{"culvert.dev/hub": {"eu-1"}, "plain": {"set"}},
	}
	hubExtra := func(name string) map[string][]string {
		return map[string][]string{"culvert.dev/hub": {"eu-1"}, "plain": {"set"}, ExtraHubUser: {name}}
	}
	for _, c := range []struct {
		name string
		user user.DefaultInfo
		want *Impersonation
	}{
		{"the first rule that matches counts", user.DefaultInfo{Name: "oidc:root"}, &Impersonation{User: "nobody-special"}},
		{"a star is what it stood for", user.DefaultInfo{Name: "oidc:ann@corp.example"}, &Impersonation{User: "corp:ann"}},
		{"a pattern is of the whole name", user.DefaultInfo{Name: "oidc:ann@corp.example.evil"}, &Impersonation{User: "cluster:hub:oidc:ann@corp.example.evil"}},
		{"a pattern is of the whole name, in its letter case", user.DefaultInfo{Name: "OIDC:ann@corp.example"}, &Impersonation{User: "cluster:hub:OIDC:ann@corp.example"}},
		{"many users may become one", user.DefaultInfo{Name: "robot-7"}, &Impersonation{User: "robot"}},
		{"a name of their own", user.DefaultInfo{Name: "free:ann"}, &Impersonation{User: "ann"}},
		{"nobody makes the name of somebody else", user.DefaultInfo{Name: "free:cluster:hub:ann"}, nil},
		{"nobody completes the name of somebody else", user.DefaultInfo{Name: "half:hub:ann"}, nil},
		{"nobody makes a system user", user.DefaultInfo{Name: "free:system:admin"}, nil},
		{"nobody makes an empty name", user.DefaultInfo{Name: "free:"}, nil},
		{"a rule may say the name of somebody else", user.DefaultInfo{Name: "said:ann"}, &Impersonation{User: "cluster:hub:ann"}},
		{"groups are replaced, removed, denied and prefixed", user.DefaultInfo{Name: "x", Groups: []string{
			"k8s:ops", "mail", "system:masters", "secret-", "secret-a", "a-guests", "guests", "system:serviceaccounts", "system:authenticated", "k8s:dev",
		}}, &Impersonation{
			User: "cluster:hub:x", Dropped: []string{"system:masters", "secret-", "secret-a", "a-guests"},
			Groups: []string{"corp:ops", "everybody", "cluster:hub:guests", "robots", "cluster:hub:system:authenticated", "corp:dev"},
		}},
		{"no rule makes a system group or that of somebody else", user.DefaultInfo{Name: "x", Groups: []string{"free:system:masters", "free:cluster:hub:ops", "free:", "free:ok"}}, &Impersonation{
			User: "cluster:hub:x", Groups: []string{"ok"}, Dropped: []string{"free:system:masters", "free:cluster:hub:ops", "free:"},
		}},
	} {
		t.Run("O15: "+c.name, func(t *testing.T) {
			got, err := newMapper(t, cfg).Map(&c.user)
			if c.want == nil {
				wantStatus(t, err, http.StatusForbidden)
				return
			}
			c.want.Extra = hubExtra(c.user.Name)
			if err != nil || !reflect.DeepEqual(got, *c.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, *c.want)
			}
		})
	}
	t.Run("N9: extra is carried by key, and the hub's own is over it", func(t *testing.T) {
		got, err := newMapper(t, cfg).Map(&user.DefaultInfo{Name: "x", Extra: map[string][]string{
			"example.com/tenant": {"t"}, "example.org/tenant": {"t"}, "plain": {"chosen"}, "culvert.dev/hub": {"chosen"},
		}})
		want := hubExtra("x")
		want["example.com/tenant"] = []string{"t"}
		if err != nil || !reflect.DeepEqual(got.Extra, want) {
			t.Errorf("got %v, %v, want %v", got.Extra, err, want)
		}
	})
	t.Run("N9: an empty list carries no extra", func(t *testing.T) {
		got, err := newMapper(t, Config{CarryExtra: []string{}}).Map(&user.DefaultInfo{Name: "x", Extra: map[string][]string{"a": {"b"}}})
		if err != nil || !reflect.DeepEqual(got.Extra, map[string][]string{ExtraHubUser: {"x"}}) {
			t.Errorf("got %v, %v", got.Extra, err)
		}
	})
	t.Run("O15: a mapper does not change with its configuration", func(t *testing.T) {
		m := newMapper(t, cfg)
		cfg.UserRules[0].To[0], cfg.SetExtra["plain"][0], cfg.DeniedGroups[0] = "changed", "changed", "changed"
		got, err := m.Map(&user.DefaultInfo{Name: "oidc:root", Groups: []string{"system:masters"}})
		if err != nil || got.User != "nobody-special" || got.Extra["plain"][0] != "set" || got.Groups != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestRuleProblems(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"two stars", Config{UserRules: []Rule{{"a*b*", []string{"x"}}}}, "userRules[0].from: "},
		{"two stars in a target", Config{GroupRules: []Rule{{"a*", []string{"ok", "**"}}}}, "groupRules[0].to[1]: "},
		{"a user without a name", Config{UserRules: []Rule{{"a", nil}}}, "userRules[0].to: "},
		{"a user with two names", Config{UserRules: []Rule{{"a", []string{"b", "c"}}}}, "userRules[0].to: "},
		{"a star out of nothing", Config{GroupRules: []Rule{{"a", []string{"b*"}}}}, "groupRules[0].to[0]: "},
		{"a system user", Config{UserRules: []Rule{{"a", []string{"system:admin"}}}}, "userRules[0].to[0]: "},
		{"what may become a system user", Config{UserRules: []Rule{{"a*", []string{"sys*"}}}}, "userRules[0].to[0]: "},
		{"a denied pattern of two stars", Config{DeniedGroups: []string{"*a*"}}, "denyGroups[0]: "},
		{"an extra pattern of two stars", Config{CarryExtra: []string{"**"}}, "extra.carry[0]: "},
		{"an extra key in upper case", Config{SetExtra: map[string][]string{"A": {"b"}}}, `extra.set["A"]: `},
		{"an extra key of the hub", Config{SetExtra: map[string][]string{ExtraHubUser: {"b"}}}, `extra.set["culvert.dev/hub-user"]: `},
		{"an extra value with an end of line", Config{SetExtra: map[string][]string{"a": {"b\n"}}}, `extra.set["a"][0]: `},
		{"a cluster that is none", Config{PassThrough: []string{"ok", "*", "a*"}}, "passThrough.clusters[2]: "},
	} {
		t.Run("O15: configuration: "+c.name, func(t *testing.T) {
			c.cfg.TokenFile = "x"
			if err := c.cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q alone", err, c.want)
			}
		})
	}
}

// FuzzRules maps any names by rules that give callers names of their own, and looks
// for a name that is not theirs.
func FuzzRules(f *testing.F) {
	f.Add("free:ann", "free:ops", "free:*", "*")
	f.Add("free:system:admin", "free:cluster:hub:x", "*", "cluster:*")
	f.Add("*", "*", "*a", "*:")
	f.Fuzz(func(t *testing.T, name, group, from, to string) {
		m, err := NewMapper(Config{UserRules: []Rule{{from, []string{to}}}, GroupRules: []Rule{{from, []string{to}}}})
		if err != nil {
			return
		}
		got, err := m.Map(&user.DefaultInfo{Name: name, Groups: []string{group, "system:masters"}})
		if err != nil {
			return
		}
		for _, is := range append(slices.Clone(got.Groups), got.User) {
			if systemName(is) || is == "" {
				t.Fatalf("%q, %q became %+v", name, group, got)
			}
		}
		head, _, wild := strings.Cut(to, wildcard)
		if wild && globbed(from, name) && strings.HasPrefix(got.User, DefaultPrefix) && !strings.HasPrefix(head, DefaultPrefix) {
			t.Fatalf("%q took the name %q", name, got.User)
		}
	})
}
