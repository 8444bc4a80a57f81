package identity

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// The keys of extra that the hub itself sets. What a backend put under
// reservedExtra is never passed on.
const (
	// ExtraHubUser holds the name at the hub of who was authenticated there.
	ExtraHubUser = "culvert.dev/hub-user"
	// ExtraAssumedUser holds the name at the hub of whom that user acts as; it is
	// there only where that is somebody else.
	ExtraAssumedUser = "culvert.dev/assumed-user"
	// ExtraRequestID holds the id of the request at the hub.
	ExtraRequestID = "culvert.dev/request-id"

	reservedExtra = "culvert.dev/"
)

// Impersonation is whom a request acts as on a managed cluster. It is plain data
// and may be shared as long as nobody changes it. The zero value impersonates
// nobody and is refused by Apply.
type Impersonation struct {
	User   string
	UID    string
	Groups []string
	Extra  map[string][]string
	// Dropped are the hub user's groups that were denied, for logs and audit.
	Dropped []string
}

// WithRequestID returns a copy of i whose extra carries id under
// [ExtraRequestID], for the audit log of the managed cluster. There, each new id
// is one more decision that an authorizer's cache cannot answer.
func (i Impersonation) WithRequestID(id string) Impersonation {
	i.Extra = maps.Clone(i.Extra)
	if i.Extra == nil {
		i.Extra = map[string][]string{}
	}
	i.Extra[ExtraRequestID] = []string{id}
	return i
}

// Apply removes every Impersonate-* field from h, in any spelling, and sets those
// of i: Impersonate-User, -Uid, -Group and -Extra-<key>, under canonical names and
// with percent-encoded keys, as kube-apiserver reads them. Call it last, after
// hop-by-hop fields were removed, so that a client cannot have one of them removed
// again. Where a value cannot be carried it returns an error and sets nothing.
func (i Impersonation) Apply(h http.Header) error {
	for name := range h {
		if isImpersonate(fold(name)) {
			delete(h, name)
		}
	}
	if err := i.validate(); err != nil {
		return err
	}
	h.Set(authenticationv1.ImpersonateUserHeader, i.User)
	if i.UID != "" {
		h.Set(authenticationv1.ImpersonateUIDHeader, i.UID)
	}
	for _, group := range i.Groups {
		h.Add(authenticationv1.ImpersonateGroupHeader, group)
	}
	for key, values := range i.Extra {
		for _, value := range values {
			h.Add(authenticationv1.ImpersonateUserExtraHeaderPrefix+escapeExtraKey(key), value)
		}
	}
	return nil
}

func (i Impersonation) validate() error {
	var problems []error
	if i.User == "" {
		problems = append(problems, errors.New("the user to impersonate has no name"))
	}
	check := func(field, value string) {
		if !carried(value) {
			problems = append(problems, fmt.Errorf("%s %q cannot be carried in a header: it has a control character, or a space at an end", field, value))
		}
	}
	check("user", i.User)
	check("uid", i.UID)
	// Map never makes these names. An Impersonation made by hand is held to the
	// same rule, since the agent's right to impersonate is not narrower.
	if systemName(i.User) {
		problems = append(problems, fmt.Errorf("user %q is a system user of the managed cluster", i.User))
	}
	for _, group := range i.Groups {
		check("group", group)
		if group == "" || systemName(group) {
			problems = append(problems, fmt.Errorf("group %q is empty or a system group of the managed cluster", group))
		}
	}
	for _, key := range sortedKeys(i.Extra) {
		if key == "" {
			problems = append(problems, errors.New("extra has an empty key"))
		}
		for _, value := range i.Extra[key] {
			check("extra "+key, value)
		}
	}
	return errors.Join(problems...)
}

// escapeExtraKey percent-encodes what cannot be in a field name (RFC 9110 section
// 5.1), and "%" itself, as client-go does. Upper case is encoded too: a
// kube-apiserver reads field names in lower case before it decodes them, and two
// keys that differ in case would become one.
func escapeExtraKey(key string) string {
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
