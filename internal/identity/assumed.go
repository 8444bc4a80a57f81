package identity

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxAssumed bounds the groups and the values of extra that a client may ask for
// together: an authorizer is asked about each.
const maxAssumed = 128

// Assumed is an identity of the hub that a client asks to act as, by the fields of
// `kubectl --as`, --as-group, --as-uid. It is plain data, as the client sent it.
type Assumed struct {
	// User is never empty.
	User   string
	UID    string
	Groups []string
	// Extra has its keys in lower case, as a kube-apiserver reads them.
	Extra map[string][]string
}

// ParseAssumed returns whom a client asks to act as, or nil where h has no
// Impersonate field. It reads the names and values that a kube-apiserver reads
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation),
// but refuses what a kube-apiserver ignores or takes the first of, since the request
// would then be somebody else's than its sender believes: another spelling of a name,
// a field twice, an empty value, a name in Connection. The error is a *fault.Error
// of invalid target (400). h is not changed.
func ParseAssumed(h http.Header) (*Assumed, error) {
	asked := &Assumed{}
	var seen, values int
	for name, list := range h {
		if !isImpersonate(fold(name)) {
			continue
		}
		seen++
		if values += len(list); values > maxAssumed {
			return nil, badAssumed(fmt.Errorf("has more than %d values: ask for less", maxAssumed))
		}
		if err := asked.read(name, list); err != nil {
			return nil, badAssumed(err)
		}
	}
	switch {
	case seen == 0:
		return nil, nil
	case asked.User == "":
		return nil, badAssumed(errors.New("asks for groups, a UID or extra without a user: send Impersonate-User too"))
	case mentioned(h):
		return nil, badAssumed(errors.New("the header Connection names an Impersonate field, which would end it at the next hop: leave it out"))
	}
	return asked, nil
}

// read takes one field in. Two spellings of one name come to it as two fields.
func (a *Assumed) read(name string, list []string) error {
	for _, value := range list {
		if value == "" || !carried(value) {
			return fmt.Errorf("a value of %q is empty, has a control character, or a space at an end", name)
		}
	}
	const extra = authenticationv1.ImpersonateUserExtraHeaderPrefix
	switch {
	case len(list) == 0:
		return fmt.Errorf("%q has no value", name)
	case strings.EqualFold(name, authenticationv1.ImpersonateUserHeader):
		return once(name, list, &a.User)
	case strings.EqualFold(name, authenticationv1.ImpersonateUIDHeader):
		return once(name, list, &a.UID)
	case strings.EqualFold(name, authenticationv1.ImpersonateGroupHeader):
		a.Groups = append(a.Groups, list...)
	case len(name) > len(extra) && strings.EqualFold(name[:len(extra)], extra):
		key, err := url.PathUnescape(strings.ToLower(name[len(extra):]))
		if err != nil {
			return fmt.Errorf("the key of %q is not percent-encoded", name)
		}
		if strings.HasPrefix(strings.ToLower(key), reservedExtra) {
			return fmt.Errorf("%q: the keys of %s are set by the hub", name, reservedExtra)
		}
		if a.Extra == nil {
			a.Extra = map[string][]string{}
		}
		a.Extra[key] = append(a.Extra[key], list...)
	default:
		return fmt.Errorf("%q is no field that a kube-apiserver reads: send Impersonate-User, -Group, -Uid or -Extra-<key>", name)
	}
	return nil
}

func once(name string, list []string, into *string) error {
	if len(list) > 1 || *into != "" {
		return fmt.Errorf("%q is there more than once: send one", name)
	}
	*into = list[0]
	return nil
}

// mentioned says whether Connection names an Impersonate field.
func mentioned(h http.Header) bool {
	for name, values := range h {
		if fold(name) != "connection" {
			continue
		}
		for _, value := range values {
			for member := range strings.SplitSeq(value, ",") {
				if isImpersonate(fold(strings.TrimSpace(member))) {
					return true
				}
			}
		}
	}
	return false
}

func badAssumed(err error) *fault.Error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "read impersonation", Code: wire.CodeInvalidTarget,
		Err: fmt.Errorf("the request to act as another user cannot be followed: %w", err),
	}
}

// user returns the identity of the hub. A service account without groups gets those
// that it has when it calls by itself; a kube-apiserver does the same. Nobody else
// gets a group that was not asked for.
func (a Assumed) user() *user.DefaultInfo {
	u := &user.DefaultInfo{Name: a.User, UID: a.UID, Groups: a.Groups, Extra: a.Extra}
	if namespace, _, err := serviceaccount.SplitUsername(a.User); err == nil && len(a.Groups) == 0 {
		u.Groups = append(serviceaccount.MakeGroupNames(namespace), user.AllAuthenticated)
	}
	return u
}

// Attributes returns what a Kubernetes authorizer has to allow caller, each of it,
// before caller may act as a: the verb impersonate on users or serviceaccounts, groups, uids
// and userextras, as a kube-apiserver asks
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation).
func (a Assumed) Attributes(caller user.Info) []authorizer.Attributes {
	one := func(group, resource, subresource, namespace, name string) authorizer.Attributes {
		return authorizer.AttributesRecord{
			User: caller, Verb: "impersonate", APIGroup: group, APIVersion: "v1", ResourceRequest: true,
			Resource: resource, Subresource: subresource, Namespace: namespace, Name: name,
		}
	}
	var all []authorizer.Attributes
	if namespace, name, err := serviceaccount.SplitUsername(a.User); err == nil {
		all = append(all, one("", "serviceaccounts", "", namespace, name))
	} else {
		all = append(all, one("", "users", "", "", a.User))
	}
	for _, group := range a.Groups {
		all = append(all, one("", "groups", "", "", group))
	}
	if a.UID != "" {
		all = append(all, one(authenticationv1.GroupName, "uids", "", "", a.UID))
	}
	for _, key := range sortedKeys(a.Extra) {
		for _, value := range a.Extra[key] {
			all = append(all, one(authenticationv1.GroupName, "userextras", key, "", value))
		}
	}
	return all
}
