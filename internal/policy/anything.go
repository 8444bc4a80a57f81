package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// reached are the kinds of targets that a cluster has.
var reached = [...]kind{kindKubernetes, kindService, kindTCP}

// decideAnything allows when it would allow some target of some kind.
func (p *Policy) decideAnything(q *query) Decision {
	var refused Decision
	for _, q.kind = range reached {
		d := p.decide(q)
		if d.Allowed {
			return d
		}
		if refused.Rule == "" {
			refused = d
		}
	}
	refused.Reason += ", and no other target of the cluster"
	return refused
}

func checkAnything(known bool) error {
	if !known {
		return errNobody
	}
	return nil
}

// some holds the rule's items of the query's kind against a query for anything: one that
// allows is for something, and one that denies leaves something, unless it is for all.
func (r *rule) some(q *query) verdict {
	var items int
	var everything bool
	switch q.kind {
	case kindKubernetes:
		items, everything = len(r.kubernetes), slices.ContainsFunc(r.kubernetes, kubernetesItem.everything)
	case kindService:
		items, everything = len(r.services), slices.ContainsFunc(r.services, serviceItem.everything)
	case kindTCP:
		items, everything = len(r.tcp), slices.ContainsFunc(r.tcp, tcpItem.everything)
	}
	switch {
	case items == 0:
		return missKind
	case q.deny && !everything:
		return missEverything
	default:
		return matched
	}
}

// everything tells an entry that no request to a Kubernetes API is left out of.
func (k kubernetesItem) everything() bool {
	return !k.onlyResources && !k.onlyURL && len(k.verbs) == 0
}

// everything tells an entry that no service is left out of.
func (s serviceItem) everything() bool {
	return s.namespace.all() && s.name.all() && s.port == "" && s.scheme == ""
}

// everything tells an entry that no address is left out of.
func (t tcpItem) everything() bool {
	hosts := len(t.hosts) == 0 || slices.ContainsFunc(t.hosts, glob.all)
	networks := len(t.cidrs) == 0 || slices.Contains(t.cidrs, allIPv4) && slices.Contains(t.cidrs, allIPv6)
	return hosts && networks && (len(t.ports) == 0 || allPorts(t.ports))
}

var (
	allIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	allIPv6 = netip.MustParsePrefix("::/0")
)

// allPorts tells whether every port is in one of ranges.
func allPorts(ranges []portRange) bool {
	ranges = slices.SortedFunc(slices.Values(ranges), func(a, b portRange) int { return cmp.Compare(a.first, b.first) })
	last := 0
	for _, r := range ranges {
		if int(r.first) > last+1 {
			return false
		}
		last = max(last, int(r.last))
	}
	return last == 65535
}
