package policy

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// What a policy file says of itself.
const (
	APIVersion = "policy.culvert.dev/v1"
	Kind       = "Policy"
)

// Effect is what a rule does with the requests that it matches.
type Effect string

// The effects. There is no default: a rule says which one it has.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// Default is what happens to requests that no rule matches.
type Default string

const (
	// DefaultKubernetes allows requests to the Kubernetes API, where the cluster's
	// own RBAC decides, and denies everything else. It is the default of a policy.
	DefaultKubernetes Default = "kubernetes"
	// DefaultDeny denies everything.
	DefaultDeny Default = "deny"
)

// Document is a policy as it is written down. It is plain data: [Compile] checks
// it and makes a [Policy] of it, [Parse] does both from YAML.
type Document struct {
	// APIVersion and Kind are [APIVersion] and [Kind].
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Default is what happens to requests that no rule matches; empty is
	// [DefaultKubernetes].
	Default Default `json:"default,omitempty"`
	// Rules are in no order: a deny wins over every allow.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule allows or denies what its items describe, to its subjects, on its
// clusters. At least one list of items is required. An absent field does not
// narrow; an empty list is an error, so that nobody has to know what it means.
type Rule struct {
	// Name is unique in a policy: lower-case letters, digits, '-' and '.', at most
	// 63. Audit lines and refusals name it.
	Name string `json:"name"`
	// Effect is required.
	Effect Effect `json:"effect"`
	// Users and Groups are globs. A caller is meant whose name matches one of
	// Users or one of whose groups matches one of Groups. Without both, every
	// authenticated caller is.
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// Clusters narrows the rule to some clusters.
	Clusters *ClusterRule `json:"clusters,omitempty"`
	// Kubernetes, Services, TCP and Impersonate are what the rule is about. A
	// request has to match one of the items of its own kind.
	Kubernetes  []KubernetesRule  `json:"kubernetes,omitempty"`
	Services    []ServiceRule     `json:"services,omitempty"`
	TCP         []TCPRule         `json:"tcp,omitempty"`
	Impersonate []ImpersonateRule `json:"impersonate,omitempty"`
}

// ClusterRule means the clusters that match both fields, as far as they are
// there.
type ClusterRule struct {
	// Names are globs.
	Names []string `json:"names,omitempty"`
	// Labels are keys with a glob of the value; a cluster has to have all of them.
	Labels map[string]string `json:"labels,omitempty"`
}

// KubernetesRule means requests to a cluster's Kubernetes API by their
// attributes, which are those of kube-apiserver
// (https://kubernetes.io/docs/reference/access-authn-authz/authorization/#review-your-request-attributes).
// Fields of resources and NonResourceURLs exclude each other; without any of them
// both kinds of requests are meant, and without any field ("{}") every request. An allow has to match every field. A deny also
// matches requests that touch what it names without naming it: a list of all
// namespaces or of all names, and subresources.
type KubernetesRule struct {
	// Verbs are those of Kubernetes (get, list, watch, create, update, patch,
	// delete, deletecollection, proxy), for other paths HTTP methods in lower case;
	// "*" is all.
	Verbs []string `json:"verbs,omitempty"`
	// APIGroups are globs; "" is the core group.
	APIGroups []string `json:"apiGroups,omitempty"`
	// Resources are "pods", "pods/log", "pods/*", "*/scale" or "*", as in RBAC. Of
	// an allow, "pods" does not include subresources.
	Resources []string `json:"resources,omitempty"`
	// Namespaces and Names are globs.
	Namespaces []string `json:"namespaces,omitempty"`
	Names      []string `json:"names,omitempty"`
	// NonResourceURLs are globs of paths, such as "/metrics" or "/healthz*".
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
}

// ServiceRule means services of a cluster.
type ServiceRule struct {
	// Namespace and Name are globs, and required.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Port is a number, a name, or absent or "*" for all. A deny needs the number,
	// since a port is asked for by either.
	Port string `json:"port,omitempty"`
	// Scheme is "http" or "https"; absent means both.
	Scheme string `json:"scheme,omitempty"`
}

// TCPRule means raw TCP targets that match every field which is there; one of
// Hosts and CIDRs is required. Addresses on which a machine is special to itself or its neighbours (see
// [SpecialAddress]) are allowed only by an entry of CIDRs that lies inside of
// their range.
type TCPRule struct {
	// Hosts are globs of the name that is asked for, in lower case and without a
	// final dot. "*" alone also means targets that are asked for by address.
	Hosts []string `json:"hosts,omitempty"`
	// CIDRs are networks or single addresses. An allow needs every address of the
	// target to be in one, a deny any. At a hub, which does not resolve names, a
	// name is in no network for an allow, and may be in any for a deny.
	CIDRs []string `json:"cidrs,omitempty"`
	// Ports are numbers, ranges ("5900-6923"), or the sets "ssl", "safe" and
	// "consoles" of [PortSets]; "*" is all.
	Ports []string `json:"ports,omitempty"`
}

// ImpersonateRule means identities that a hub user takes on with kubectl --as. An
// absent field means none here. Every part that is asked for (the user, each
// group, the UID, each key of extra) has to be allowed by some rule, and one part
// that is denied denies the whole.
type ImpersonateRule struct {
	// Users, Groups, UIDs and ExtraKeys are globs.
	Users     []string `json:"users,omitempty"`
	Groups    []string `json:"groups,omitempty"`
	UIDs      []string `json:"uids,omitempty"`
	ExtraKeys []string `json:"extraKeys,omitempty"`
}

// YAML returns the document as a policy file.
func (d Document) YAML() ([]byte, error) {
	text, err := yaml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write policy: %w", err)
	}
	return text, nil
}
