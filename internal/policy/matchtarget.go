package policy

import (
	"net/netip"
	"slices"
	"strings"
)

func (s *serviceItem) match(q *query) verdict {
	t := &q.service
	if !s.namespace.match(t.Namespace) || !s.name.match(t.Name) {
		return missService
	}
	unknown := t.Scheme == "" && q.deny && !q.early
	if s.scheme != "" && s.scheme != t.Scheme && !unknown {
		return missScheme
	}
	switch {
	case s.port == "" || s.port == t.Port:
		return matched
	case s.number == 0:
		return missPort
	case q.number != 0:
		return holds(s.number == q.number, missPort)
	case q.deny && !q.early:
		return matchedUnknownPort
	default:
		return holds(!q.deny && q.early, missPortUnknown)
	}
}

func (t *tcpItem) match(q *query) verdict {
	if len(t.hosts) > 0 && !t.host(q) {
		return missHost
	}
	if len(t.ports) > 0 && !inPorts(t.ports, q.tcp.Port) {
		return missPort
	}
	if q.deny {
		return t.denies(q)
	}
	return t.allows(q)
}

// host matches names; an address that is asked for has none.
func (t *tcpItem) host(q *query) bool {
	for i := range t.hosts {
		if t.hosts[i].all() || !q.literal.IsValid() && t.hosts[i].match(q.tcp.Host) {
			return true
		}
	}
	return false
}

// resolved tells whether the addresses of the target are known.
func (q *query) resolved() bool { return q.literal.IsValid() || len(q.tcp.Addresses) > 0 }

func (t *tcpItem) denies(q *query) verdict {
	if len(t.cidrs) == 0 {
		return matched
	}
	if !q.resolved() {
		if q.early {
			return missAddressUnknown
		}
		return matchedUnknownAddress
	}
	if q.literal.IsValid() && t.includes(q.literal) {
		return matched
	}
	return holds(slices.ContainsFunc(q.tcp.Addresses, t.includes), missAddress)
}

// includes matches an address and what a gateway makes of it.
func (t *tcpItem) includes(a netip.Addr) bool {
	a = plain(a)
	if !a.IsValid() || t.contains(a) {
		return true
	}
	inner, ok := embedded(a)
	return ok && t.contains(inner)
}

func (t *tcpItem) contains(a netip.Addr) bool {
	for i := range t.cidrs {
		if t.cidrs[i].Contains(a) {
			return true
		}
	}
	return false
}

func (t *tcpItem) allows(q *query) verdict {
	if !q.resolved() {
		switch {
		case len(t.cidrs) > 0 && !q.early:
			return missAddressUnknown
		case isLocalhost(q.tcp.Host) && len(t.cidrs) == 0:
			return holds(slices.ContainsFunc(t.hosts, q.listed), missSpecial)
		default:
			return matched
		}
	}
	if q.literal.IsValid() {
		if v := t.allowsAddress(q, q.literal); v != matched {
			return v
		}
	}
	for _, a := range q.tcp.Addresses {
		if v := t.allowsAddress(q, a); v != matched {
			return v
		}
	}
	return matched
}

func (t *tcpItem) allowsAddress(q *query, a netip.Addr) verdict {
	a = plain(a)
	if len(t.cidrs) > 0 && !t.contains(a) {
		return missAddress
	}
	kind, within, special := specialAddress(a)
	if !special {
		return matched
	}
	for _, c := range t.cidrs {
		if within.IsValid() && c.Bits() >= within.Bits() && within.Contains(c.Addr()) && c.Contains(a) {
			return matched
		}
	}
	// This name means such addresses, and nothing else (RFC 6761 section 6.3).
	if kind == "loopback" && isLocalhost(q.tcp.Host) && slices.ContainsFunc(t.hosts, q.listed) {
		return matched
	}
	return missSpecial
}

// listed tells whether a pattern is the very name that is asked for.
func (q *query) listed(g glob) bool { return g.exact() && g.text == q.tcp.Host }

func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

func (i *impersonateItem) match(q *query) verdict {
	return holds(matchAny(i[q.part], q.value), missPart)
}
