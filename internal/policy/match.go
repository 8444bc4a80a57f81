package policy

import "slices"

// match holds a rule against a request. Whether the rule denies is the query's to
// say, since only rules of that effect are asked.
func (r *rule) match(q *query) verdict {
	if len(r.clusters) > 0 && !matchAny(r.clusters, q.cluster.Name) {
		return missCluster
	}
	for i := range r.labels {
		value, ok := q.cluster.Labels[r.labels[i].key]
		if !ok || !r.labels[i].value.match(value) {
			return missLabels
		}
	}
	who := r.subject(q)
	if !who.matches() {
		return who
	}
	if what := r.items(q); what != matched {
		return what
	}
	return who
}

func (r *rule) subject(q *query) verdict {
	switch {
	case !q.known && r.anyone:
		return matched
	case !q.known && q.deny:
		return matchedUnknownUser
	case !q.known:
		return missSubject
	case q.anonymous && !q.deny:
		// "*" and no subjects mean everybody who is known.
		return holds(slices.ContainsFunc(r.users, q.named), missSubject)
	case r.anyone || matchAny(r.users, q.user):
		return matched
	}
	for _, group := range q.groups {
		if matchAny(r.groups, group) {
			return matched
		}
	}
	return missSubject
}

func (q *query) named(g glob) bool { return g.exact() && g.text == q.user }

// holds returns matched or what did not.
func holds(ok bool, miss verdict) verdict {
	if ok {
		return matched
	}
	return miss
}

// items returns the best verdict of the rule's items of the request's kind.
func (r *rule) items(q *query) verdict {
	if q.anything {
		return r.some(q)
	}
	switch q.kind {
	case kindKubernetes:
		return best(r.kubernetes, q, (*kubernetesItem).match)
	case kindService:
		return best(r.services, q, (*serviceItem).match)
	case kindTCP:
		return best(r.tcp, q, (*tcpItem).match)
	case kindImpersonate:
		return best(r.impersonate, q, (*impersonateItem).match)
	default:
		return missKind
	}
}

// best prefers what is sure to what may be, and else what got furthest.
func best[I any](items []I, q *query, match func(*I, *query) verdict) verdict {
	found := missKind
	for i := range items {
		v := match(&items[i], q)
		switch {
		case v == matched:
			return v
		case v.matches() && (!found.matches() || v < found), !found.matches() && v > found:
			found = v
		}
	}
	return found
}

func (k *kubernetesItem) match(q *query) verdict {
	if q.sealed {
		switch {
		case q.deny:
			return matchedSealed
		case k.everything():
			return matched
		}
		return missSealed
	}
	a := &q.kubernetes
	if k.onlyResources && !a.isResource || k.onlyURL && a.isResource {
		return missResource
	}
	if len(k.verbs) > 0 && !slices.Contains(k.verbs, a.verb) {
		return missVerb
	}
	if k.onlyURL {
		return holds(matchAny(k.paths, a.path), missPath)
	}
	if len(k.groups) > 0 && !matchAny(k.groups, a.group) {
		return missGroup
	}
	result := matched
	if len(k.names) > 0 && !matchAny(k.names, a.name) {
		if !q.deny || a.name != "" {
			return missName
		}
		result = matchedAllNames
	}
	if len(k.namespaces) > 0 && !matchAny(k.namespaces, a.namespace) {
		if !q.deny || !a.allNamespaces() {
			return missNamespace
		}
		result = matchedAllNamespaces
	}
	if len(k.resources) > 0 {
		v := k.resource(a, q.deny)
		if !v.matches() {
			return v
		}
		result = max(result, v)
	}
	return result
}

func (k *kubernetesItem) resource(a *attributes, deny bool) verdict {
	found := missResourceName
	for _, r := range k.resources {
		switch {
		case r.name != "" && r.name != a.resource:
		case r.sub == a.sub, r.sub == wildcard && (r.name == "" || a.sub != ""):
			return matched
		case deny && r.sub == "":
			found = matchedSubresource
		}
	}
	return found
}

// clusterScoped are the resources of Kubernetes itself that have no namespace: a
// list of them includes nothing of any namespace. Of others nothing tells.
var clusterScoped = map[string][]string{
	"":                             {"namespaces", "nodes", "persistentvolumes", "componentstatuses"},
	"admissionregistration.k8s.io": nil,
	"apiextensions.k8s.io":         nil,
	"apiregistration.k8s.io":       nil,
	"certificates.k8s.io":          {"certificatesigningrequests", "clustertrustbundles"},
	"flowcontrol.apiserver.k8s.io": nil,
	"metrics.k8s.io":               {"nodes"},
	"networking.k8s.io":            {"ingressclasses", "ipaddresses", "servicecidrs"},
	"node.k8s.io":                  nil,
	"rbac.authorization.k8s.io":    {"clusterroles", "clusterrolebindings"},
	"resource.k8s.io":              {"deviceclasses", "resourceslices", "devicetaintrules"},
	"scheduling.k8s.io":            {"priorityclasses"},
	"storage.k8s.io":               {"storageclasses", "volumeattachments", "csidrivers", "csinodes", "volumeattributesclasses"},
	"storagemigration.k8s.io":      nil,
}

// allNamespaces tells a request that may be for the objects of all namespaces.
func (a *attributes) allNamespaces() bool {
	if a.namespace != "" || a.verb != "list" && a.verb != "watch" && a.verb != "deletecollection" {
		return false
	}
	resources, known := clusterScoped[a.group]
	return !known || resources != nil && !slices.Contains(resources, a.resource)
}
