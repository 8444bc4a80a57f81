package connect

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/route"
)

// Rule sends hosts to a cluster.
type Rule struct {
	// Hosts are names, "*.example.com" for every name below example.com, or "*" for
	// every name.
	Hosts []string `json:"hosts,omitempty"`
	// CIDRs are ranges of addresses, or addresses. They are for hosts that are given as an address;
	// names are resolved by the agent alone.
	CIDRs []string `json:"cidrs,omitempty"`
	// Cluster is the cluster that has them.
	Cluster string `json:"cluster"`
}

// Routes say which cluster has a host. They are safe for concurrent use.
type Routes struct {
	exact    map[string]string
	suffixes []suffix // longest first
	prefixes []prefix // longest first
}

type suffix struct{ text, cluster string } // ".example.com", or "" for "*"

type prefix struct {
	network netip.Prefix
	cluster string
}

// NewRoutes compiles rules. What counts for a host does not depend on their order: a
// name before a wildcard, the longer wildcard before the shorter, the smaller range
// before the larger. So each of them may be there once. The error has every problem
// with the path of its field, such as "[0].hosts[1]".
func NewRoutes(rules []Rule) (*Routes, error) {
	c := &compiler{routes: &Routes{exact: map[string]string{}}, seen: map[string]string{}}
	for i, rule := range rules {
		c.add(fmt.Sprintf("[%d]", i), rule)
	}
	if err := errors.Join(c.problems...); err != nil {
		return nil, err
	}
	r := c.routes
	slices.SortFunc(r.suffixes, func(a, b suffix) int { return cmp.Compare(len(b.text), len(a.text)) })
	slices.SortFunc(r.prefixes, func(a, b prefix) int { return cmp.Compare(b.network.Bits(), a.network.Bits()) })
	return r, nil
}

type compiler struct {
	routes   *Routes
	seen     map[string]string // what is there already, and the path of its field
	problems []error
}

func (c *compiler) add(path string, rule Rule) {
	if err := route.CheckCluster(rule.Cluster); err != nil {
		c.fail(path+".cluster", err)
	}
	if len(rule.Hosts)+len(rule.CIDRs) == 0 {
		c.fail(path, errors.New("leads nowhere: give hosts, cidrs, or both"))
	}
	for i, text := range rule.Hosts {
		c.host(fmt.Sprintf("%s.hosts[%d]", path, i), text, rule.Cluster)
	}
	for i, text := range rule.CIDRs {
		field := fmt.Sprintf("%s.cidrs[%d]", path, i)
		network, err := route.ParseNetwork(text)
		if err != nil {
			c.fail(field, err)
		} else if c.first(field, network.String()) {
			c.routes.prefixes = append(c.routes.prefixes, prefix{network, rule.Cluster})
		}
	}
}

func (c *compiler) host(field, text, cluster string) {
	if text == "*" {
		if c.first(field, text) {
			c.routes.suffixes = append(c.routes.suffixes, suffix{"", cluster})
		}
		return
	}
	name, wild := strings.CutPrefix(text, "*.")
	host, err := route.ParseHost(name)
	switch _, isAddress := route.IsAddress(host); {
	case err != nil:
		c.fail(field, err)
	case isAddress:
		c.fail(field, fmt.Errorf("%q is an address: give it as one of cidrs", text))
	case wild:
		if c.first(field, "*."+host) {
			c.routes.suffixes = append(c.routes.suffixes, suffix{"." + host, cluster})
		}
	case c.first(field, host):
		c.routes.exact[host] = cluster
	}
}

// first reports whether nothing before was for the same hosts.
func (c *compiler) first(field, key string) bool {
	if before, ok := c.seen[key]; ok {
		c.fail(field, fmt.Errorf("%s is in %s already: each may be there once", key, before))
		return false
	}
	c.seen[key] = field
	return true
}

func (c *compiler) fail(field string, err error) {
	c.problems = append(c.problems, fmt.Errorf("%s: %w", field, err))
}

// Lookup returns the cluster that has host, in the spelling of package route.
func (r *Routes) Lookup(host string) (cluster string, ok bool) {
	if r == nil {
		return "", false
	}
	if ip, isAddress := route.IsAddress(host); isAddress {
		for _, p := range r.prefixes {
			if p.network.Contains(ip) {
				return p.cluster, true
			}
		}
		return "", false
	}
	if cluster, ok := r.exact[host]; ok {
		return cluster, true
	}
	for _, s := range r.suffixes {
		if strings.HasSuffix(host, s.text) {
			return s.cluster, true
		}
	}
	return "", false
}
