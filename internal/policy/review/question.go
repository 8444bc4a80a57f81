package review

import (
	"net"
	"slices"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// Group is the API group of the rights to use Culvert.
const Group = "access.culvert.dev"

const (
	verbConnect     = "connect"
	verbImpersonate = "impersonate"

	resourceClusters = "clusters"
)

// questionsOf returns the ways to be allowed, each of which is a list of questions
// that all have to be answered with yes, or why there is nothing to ask.
func questionsOf(q policy.Request) (ways [][]authorizationv1.SubjectAccessReviewSpec, nothing string) {
	if q.UserUnknown || q.User == nil || q.User.GetName() == "" {
		return nil, "the management cluster cannot be asked, since it is not known who asks"
	}
	if err := cause(route.CheckCluster(q.Cluster.Name)); err != nil {
		return nil, err.Error()
	}
	ask := func(a authorizationv1.ResourceAttributes) authorizationv1.SubjectAccessReviewSpec {
		return specOf(q, a)
	}
	connect := func(subresource, resource, name string) [][]authorizationv1.SubjectAccessReviewSpec {
		return [][]authorizationv1.SubjectAccessReviewSpec{
			{ask(authorizationv1.ResourceAttributes{Group: Group, Verb: verbConnect, Resource: resourceClusters, Subresource: subresource, Name: q.Cluster.Name})},
			{ask(authorizationv1.ResourceAttributes{Group: Group, Verb: verbConnect, Resource: resource, Name: q.Cluster.Name + ":" + name})},
		}
	}
	if q.Anything {
		if q.Kubernetes != nil || q.KubernetesTLS || q.Service != nil || q.TCP != nil || q.Impersonate != nil {
			return nil, "the request is not for exactly one target"
		}
		return anything(q, ask), ""
	}
	switch {
	case q.KubernetesTLS:
		if q.Kubernetes != nil || q.Service != nil || q.TCP != nil || q.Impersonate != nil {
			return nil, "the request is not for exactly one target"
		}
		return [][]authorizationv1.SubjectAccessReviewSpec{{ask(authorizationv1.ResourceAttributes{
			Group: Group, Verb: verbConnect, Resource: resourceClusters, Subresource: "kubernetes", Name: q.Cluster.Name,
		})}}, ""
	case q.Kubernetes != nil && q.Service == nil && q.TCP == nil && q.Impersonate == nil:
		verb := q.Kubernetes.GetVerb()
		if verb == "" {
			return nil, "the request has no verb that the management cluster could be asked about"
		}
		return [][]authorizationv1.SubjectAccessReviewSpec{{ask(authorizationv1.ResourceAttributes{
			Group: Group, Verb: verb, Resource: resourceClusters, Subresource: "kubernetes", Name: q.Cluster.Name,
		})}}, ""
	case q.Kubernetes == nil && q.Service != nil && q.TCP == nil && q.Impersonate == nil:
		s := q.Service
		if err := cause(route.CheckTarget(wire.Service(s.Namespace, s.Name, s.Port, s.Scheme))); err != nil {
			return nil, err.Error()
		}
		name := s.Namespace + "/" + s.Name
		if s.Port != "" {
			name += ":" + s.Port
		}
		return connect("services", "services", name), ""
	case q.Kubernetes == nil && q.Service == nil && q.TCP != nil && q.Impersonate == nil:
		if err := cause(route.CheckTarget(wire.Address(q.TCP.Host, q.TCP.Port))); err != nil {
			return nil, err.Error()
		}
		return connect("tcp", "addresses", net.JoinHostPort(q.TCP.Host, strconv.Itoa(int(q.TCP.Port)))), ""
	case q.Kubernetes == nil && q.Service == nil && q.TCP == nil && q.Impersonate != nil:
		all := impersonation(q.Impersonate, ask)
		if len(all) == 0 {
			return nil, "the request impersonates nobody"
		}
		return [][]authorizationv1.SubjectAccessReviewSpec{all}, ""
	default:
		return nil, "the request is not for exactly one target"
	}
}

// anything asks about what a cluster has as a whole: rights to single addresses and services
// cannot be asked for without their names.
func anything(q policy.Request, ask func(authorizationv1.ResourceAttributes) authorizationv1.SubjectAccessReviewSpec) (ways [][]authorizationv1.SubjectAccessReviewSpec) {
	for _, way := range [...][2]string{{"get", "kubernetes"}, {verbConnect, "kubernetes"}, {verbConnect, "services"}, {verbConnect, "tcp"}} {
		ways = append(ways, []authorizationv1.SubjectAccessReviewSpec{ask(authorizationv1.ResourceAttributes{
			Group: Group, Verb: way[0], Resource: resourceClusters, Subresource: way[1], Name: q.Cluster.Name,
		})})
	}
	return ways
}

// impersonation asks what a kube-apiserver asks about the same headers
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation),
// but about every value of a key of extra at once.
func impersonation(i *policy.Impersonation, ask func(authorizationv1.ResourceAttributes) authorizationv1.SubjectAccessReviewSpec) []authorizationv1.SubjectAccessReviewSpec {
	var all []authorizationv1.SubjectAccessReviewSpec
	if namespace, name, err := serviceaccount.SplitUsername(i.User); err == nil {
		all = append(all, ask(authorizationv1.ResourceAttributes{Verb: verbImpersonate, Resource: "serviceaccounts", Namespace: namespace, Name: name}))
	} else if i.User != "" {
		all = append(all, ask(authorizationv1.ResourceAttributes{Verb: verbImpersonate, Resource: "users", Name: i.User}))
	}
	if i.UID != "" {
		all = append(all, ask(authorizationv1.ResourceAttributes{Group: authenticationv1.GroupName, Verb: verbImpersonate, Resource: "uids", Name: i.UID}))
	}
	for _, group := range i.Groups {
		all = append(all, ask(authorizationv1.ResourceAttributes{Verb: verbImpersonate, Resource: "groups", Name: group}))
	}
	for _, key := range slices.Sorted(slices.Values(i.ExtraKeys)) {
		all = append(all, ask(authorizationv1.ResourceAttributes{Group: authenticationv1.GroupName, Verb: verbImpersonate, Resource: "userextras", Subresource: key}))
	}
	return all
}

func specOf(q policy.Request, a authorizationv1.ResourceAttributes) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{
		ResourceAttributes: &a, User: q.User.GetName(), UID: q.User.GetUID(), Groups: q.User.GetGroups(),
	}
	if extra := q.User.GetExtra(); len(extra) > 0 {
		spec.Extra = make(map[string]authorizationv1.ExtraValue, len(extra))
		for key, values := range extra {
			spec.Extra[key] = values
		}
	}
	return spec
}

// cause takes the hop off an error about names.
func cause(err error) error {
	if f := fault.As(err); f != nil {
		return f.Err
	}
	return err
}
