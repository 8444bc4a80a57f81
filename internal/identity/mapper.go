package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Mapper turns users of the hub into impersonations. It is made by [NewMapper],
// never changes and is safe for concurrent use.
type Mapper struct {
	prefix     string
	denied     []string
	users      []Rule
	groups     []Rule
	carryExtra []string // nil for every key
	setExtra   map[string][]string
}

// NewMapper returns a mapper by cfg's Prefix, DeniedGroups, rules and extra; the
// fields of the authenticators are not looked at.
func NewMapper(cfg Config) (*Mapper, error) {
	if err := errors.Join(cfg.mappingProblems()...); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cfg = cfg.withDefaults()
	return &Mapper{
		prefix: cfg.Prefix, denied: cfg.DeniedGroups, users: cfg.UserRules, groups: cfg.GroupRules,
		carryExtra: cfg.CarryExtra, setExtra: cfg.SetExtra,
	}, nil
}

// Map returns whom u acts as:
//
//   - The name is what the first of UserRules that matches makes of it, and prefixed
//     where none does: one that already begins with the prefix gets it once more, so
//     that two users of the hub are never one unless a rule says so.
//   - A group is left out when it is denied, replaced by the first of GroupRules that
//     matches, and prefixed otherwise. No name that begins with "system:" comes out;
//     the group system:authenticated is added by the managed kube-apiserver itself.
//   - UID and extra are carried as they are, extra by CarryExtra and with SetExtra
//     over it. The hub user's name goes to extra under [ExtraHubUser]; keys of
//     culvert.dev/ that a backend sent are dropped. Of a user from [Assume] that name
//     is the caller's, and whom it acts as goes under [ExtraAssumedUser].
//
// It refuses a user without a name, one that a header cannot carry unchanged, and
// one whose token the managed cluster judges. The error is a *fault.Error. u is not
// changed, and the result shares nothing with it.
func (m *Mapper) Map(u user.Info) (Impersonation, error) {
	if reason := refusedUser(u); reason != "" {
		return Impersonation{}, refusal403(errors.New(reason))
	}
	name, err := m.userName(u.GetName())
	if err != nil {
		return Impersonation{}, refusal403(err)
	}
	i := Impersonation{User: name, UID: u.GetUID(), Extra: map[string][]string{}}
	for _, group := range u.GetGroups() {
		to := m.groupNames(group)
		if to == nil {
			i.Dropped = append(i.Dropped, group)
			continue
		}
		i.Groups = appendNew(i.Groups, to...)
	}
	for key, values := range u.GetExtra() {
		if !strings.HasPrefix(strings.ToLower(key), reservedExtra) && (m.carryExtra == nil || anyGlobbed(m.carryExtra, key)) {
			i.Extra[key] = slices.Clone(values)
		}
	}
	for key, values := range m.setExtra {
		i.Extra[key] = slices.Clone(values)
	}
	i.Extra[ExtraHubUser] = []string{Real(u).GetName()}
	if _, assumed := u.(*assumedUser); assumed {
		i.Extra[ExtraAssumedUser] = []string{u.GetName()}
	}
	if err := i.validate(); err != nil {
		return Impersonation{}, refusal403(err)
	}
	return i, nil
}

func (m *Mapper) userName(name string) (string, error) {
	for _, rule := range m.users {
		to, ok := rule.match(name)
		if !ok {
			continue
		}
		if chosen(rule, 0, to[0], m.prefix) {
			return "", fmt.Errorf("the rule for %q would make %q of it, by which another user of the hub may be known", rule.From, to[0])
		}
		return to[0], nil
	}
	return m.prefix + name, nil
}

// groupNames returns nil for a group that is left out, and an empty slice for one
// that a rule replaces by nothing.
func (m *Mapper) groupNames(group string) []string {
	if group == "" || anyGlobbed(m.denied, group) {
		return nil
	}
	for _, rule := range m.groups {
		to, ok := rule.match(group)
		if !ok {
			continue
		}
		for i, name := range to {
			if name == "" || systemName(name) || chosen(rule, i, name, m.prefix) {
				return nil
			}
		}
		return to
	}
	return []string{m.prefix + group}
}

func appendNew(groups []string, more ...string) []string {
	for _, group := range more {
		if !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return groups
}

func refusal403(err error) *fault.Error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "map identity", Code: wire.CodePermissionDenied,
		Err: fmt.Errorf("the user cannot be expressed as an impersonation: %w", err),
	}
}
