package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// DefaultPrefix is the one that hubs put before each user and group, see
	// identity.DefaultPrefix.
	DefaultPrefix = "cluster:hub:"

	systemPrefix = "system:"
	// Bounds of what a request may impersonate. Heads are bounded in bytes
	// already; these keep the cost of a decision small.
	maxGroups = 1024
	maxExtra  = 1024
)

// Impersonation is whom the agent acts for. It holds against a hub gone bad: the
// agent's account may mostly impersonate everybody. The zero value allows what a
// hub with the default mapping sends. It is plain data, read by [New].
type Impersonation struct {
	// Prefixes are beginnings of users' and groups' names. Default
	// {[DefaultPrefix]}; an empty, non-nil slice leaves Users and Groups alone.
	Prefixes []string `json:"prefixes,omitempty"`
	// Users and Groups are whole names beside, for hubs that map some of theirs
	// to names of the cluster. Default none.
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// Validate names everything that is wrong, with the field. No name of the
// system's own ("system:…") can be allowed.
func (i *Impersonation) Validate() error {
	var problems []error
	for n, prefix := range i.Prefixes {
		switch {
		case prefix == "":
			problems = append(problems, fmt.Errorf("prefixes[%d]: empty, which would allow everybody: name the hub's prefix, such as %q", n, DefaultPrefix))
		case strings.HasPrefix(prefix, systemPrefix) || strings.HasPrefix(systemPrefix, prefix):
			problems = append(problems, fmt.Errorf("prefixes[%d]: %q is or becomes a name of the system (%s…): name the hub's prefix, such as %q", n, prefix, systemPrefix, DefaultPrefix))
		}
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"users", i.Users}, {"groups", i.Groups}} {
		for n, name := range list.names {
			if name == "" || strings.HasPrefix(name, systemPrefix) {
				problems = append(problems, fmt.Errorf("%s[%d]: %q is empty or a name of the system (%s…), which the agent never acts for", list.field, n, name, systemPrefix))
			}
		}
	}
	return errors.Join(problems...)
}

// clone returns a copy with the defaults that shares nothing with i.
func (i *Impersonation) clone() Impersonation {
	c := Impersonation{Prefixes: slices.Clone(i.Prefixes), Users: slices.Clone(i.Users), Groups: slices.Clone(i.Groups)}
	if i.Prefixes == nil {
		c.Prefixes = []string{DefaultPrefix}
	}
	return c
}

// allows tells whether a name may be acted for, given the names allowed whole.
func (i *Impersonation) allows(name string, whole []string) bool {
	if name == "" || strings.HasPrefix(name, systemPrefix) {
		return false
	}
	return slices.Contains(whole, name) ||
		slices.ContainsFunc(i.Prefixes, func(prefix string) bool { return len(name) > len(prefix) && strings.HasPrefix(name, prefix) })
}

const (
	headerUser  = authenticationv1.ImpersonateUserHeader
	headerGroup = authenticationv1.ImpersonateGroupHeader
	headerUID   = authenticationv1.ImpersonateUIDHeader
	headerExtra = authenticationv1.ImpersonateUserExtraHeaderPrefix
)

// impersonated returns the user in the header of a request from the hub, and nil
// where there is none. What is not exactly one user within the bounds is refused:
// the error is a [*fault.Error] of the agent.
func (i *Impersonation) impersonated(h http.Header) (*user.DefaultInfo, error) {
	u := &user.DefaultInfo{Extra: map[string][]string{}}
	found := false
	for name, values := range h {
		if !isImpersonate(fold(name)) {
			continue
		}
		found = true
		switch {
		case name == headerUser && len(values) == 1:
			u.Name = values[0]
		case name == headerUID && len(values) == 1:
			u.UID = values[0]
		case name == headerGroup:
			u.Groups = slices.Clone(values)
		case strings.HasPrefix(name, headerExtra):
			key, err := extraKey(name)
			if err != nil {
				return nil, refuseIdentity(err)
			}
			u.Extra[key] = append(u.Extra[key], values...)
		default:
			return nil, refuseIdentity(fmt.Errorf("%d values of the header %.64q, want one user, at most one uid, groups and extra", len(values), name))
		}
	}
	if !found {
		return nil, nil
	}
	switch {
	case u.Name == "":
		return nil, refuseIdentity(errors.New("the hub sent no user to impersonate, and the agent acts for nobody else"))
	case len(u.Groups) > maxGroups || len(u.Extra) > maxExtra:
		return nil, refuseIdentity(fmt.Errorf("%d groups and %d keys of extra, at most %d and %d are accepted", len(u.Groups), len(u.Extra), maxGroups, maxExtra))
	case !i.allows(u.Name, i.Users):
		return nil, refuseIdentity(fmt.Errorf("the agent does not act for user %.128q, only for names that begin with one of %q: its owner can allow others", u.Name, i.Prefixes))
	}
	for _, group := range u.Groups {
		if !i.allows(group, i.Groups) {
			return nil, refuseIdentity(fmt.Errorf("the agent does not act for group %.128q, only for names that begin with one of %q: its owner can allow others", group, i.Prefixes))
		}
	}
	return u, nil
}

// extraKey returns the key in the name of a header, as kube-apiserver does: in
// lower case, then unescaped.
func extraKey(name string) (string, error) {
	encoded := strings.ToLower(name[len(headerExtra):])
	key, err := url.PathUnescape(encoded)
	if err != nil || key == "" {
		return "", fmt.Errorf("the key of extra %.64q is empty or wrongly escaped", encoded)
	}
	return key, nil
}

// checkedHeaders are the impersonation headers of a request that was checked.
func checkedHeaders(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if isImpersonate(fold(name)) {
			kept[name] = slices.Clone(values)
		}
	}
	return kept
}

// opIdentity is in [fault.Error.Op] whom the agent does not act for.
const opIdentity = "check identity"

func refuseIdentity(err error) error {
	return &fault.Error{Hop: wire.HopAgent, Op: opIdentity, Code: wire.CodePermissionDenied, Err: err}
}
