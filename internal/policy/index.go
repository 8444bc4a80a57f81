package policy

import (
	"slices"

	"k8s.io/apiserver/pkg/authentication/user"
)

// index finds the rules about one kind of request that may be for a caller. Rules
// are their places in the policy; every list is in rising order.
type index struct {
	allow, deny subjects
}

// subjects has each rule once in all. A rule that names its callers without a
// glob is found by their names; the others are held against every request.
type subjects struct {
	all    []int
	scan   []int
	users  map[string][]int
	groups map[string][]int
}

func (p *Policy) makeIndex() {
	for i := range p.rules {
		r := &p.rules[i]
		for k, n := range [kinds]int{
			kindKubernetes: len(r.kubernetes), kindService: len(r.services), kindTCP: len(r.tcp), kindImpersonate: len(r.impersonate),
		} {
			switch {
			case n == 0:
			case r.deny:
				p.index[k].deny.add(i, r)
			default:
				p.index[k].allow.add(i, r)
			}
		}
	}
}

func (s *subjects) add(i int, r *rule) {
	s.all = append(s.all, i)
	if r.anyone || slices.ContainsFunc(r.users, hasStar) || slices.ContainsFunc(r.groups, hasStar) {
		s.scan = append(s.scan, i)
		return
	}
	s.users = addNames(s.users, r.users, i)
	s.groups = addNames(s.groups, r.groups, i)
}

func hasStar(g glob) bool { return !g.exact() }

func addNames(to map[string][]int, names []glob, i int) map[string][]int {
	if to == nil && len(names) > 0 {
		to = make(map[string][]int, len(names))
	}
	for _, name := range names {
		to[name.text] = append(to[name.text], i)
	}
	return to
}

// none is the place of no rule.
const none = -1

// find returns the first rule of the policy that matches, so that the answer to
// the same question always names the same rule.
func (s *subjects) find(p *Policy, q *query) int {
	if !q.known {
		return first(p, q, s.all, none)
	}
	best := first(p, q, s.scan, none)
	if len(s.users) > 0 {
		best = first(p, q, s.users[q.user], best)
	}
	if len(s.groups) > 0 {
		for _, group := range q.groups {
			best = first(p, q, s.groups[group], best)
		}
	}
	return best
}

// first looks for a matching rule before best.
func first(p *Policy, q *query, rules []int, best int) int {
	for _, i := range rules {
		if best != none && i >= best {
			break
		}
		if p.rules[i].match(q).matches() {
			return i
		}
	}
	return best
}

// anonymous tells a caller without an identity, for whom rules are only when they
// name it.
func anonymous(u user.Info) bool {
	return u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllUnauthenticated)
}
