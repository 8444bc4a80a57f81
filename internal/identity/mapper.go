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
	prefix string
	denied []string
	groups map[string][]string
}

// NewMapper returns a mapper by cfg's Prefix, DeniedGroups and GroupMap; the
// fields of the authenticators are not looked at.
func NewMapper(cfg Config) (*Mapper, error) {
	if err := errors.Join(cfg.mappingProblems()...); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cfg = cfg.withDefaults()
	return &Mapper{prefix: cfg.Prefix, denied: cfg.DeniedGroups, groups: cfg.GroupMap}, nil
}

// Map returns whom u acts as:
//
//   - The name is prefixed, always: one that already begins with the prefix gets
//     it once more, so that two users of the hub are never one.
//   - A group is left out when it is denied, replaced when GroupMap has it, and
//     prefixed otherwise. No name that begins with "system:" comes out; the
//     group system:authenticated is added by the managed kube-apiserver itself.
//   - UID and extra are carried as they are. The hub user's name goes to extra
//     under [ExtraHubUser]; keys of culvert.dev/ that a backend sent are dropped.
//
// It refuses a user without a name and one that a header cannot carry unchanged.
// The error is a *fault.Error. u is not changed, and the result shares nothing
// with it.
func (m *Mapper) Map(u user.Info) (Impersonation, error) {
	if reason := refusedUser(u); reason != "" {
		return Impersonation{}, refusal403(errors.New(reason))
	}
	i := Impersonation{
		User:  m.prefix + u.GetName(),
		UID:   u.GetUID(),
		Extra: map[string][]string{},
	}
	for _, group := range u.GetGroups() {
		to, mapped := m.groups[group]
		switch {
		case group == "" || slices.Contains(m.denied, group):
			i.Dropped = append(i.Dropped, group)
		case mapped:
			i.Groups = appendNew(i.Groups, to...)
		default:
			i.Groups = appendNew(i.Groups, m.prefix+group)
		}
	}
	for key, values := range u.GetExtra() {
		if !strings.HasPrefix(strings.ToLower(key), reservedExtra) {
			i.Extra[key] = slices.Clone(values)
		}
	}
	i.Extra[ExtraHubUser] = []string{u.GetName()}
	if err := i.validate(); err != nil {
		return Impersonation{}, refusal403(err)
	}
	return i, nil
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
