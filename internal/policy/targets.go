package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// verbs are all that a request can have: those of resources
// (https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb),
// and HTTP methods for other paths.
var (
	resourceVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"}
	methodVerbs   = []string{"get", "head", "post", "put", "patch", "delete", "options", "connect", "trace"}
)

const wildcard = "*"

func (c *compiler) kubernetes(r KubernetesRule, path string, _ bool) kubernetesItem {
	k := kubernetesItem{
		onlyResources: len(r.APIGroups)+len(r.Resources)+len(r.Namespaces)+len(r.Names) > 0,
		onlyURL:       len(r.NonResourceURLs) > 0,
		namespaces:    c.globs(r.Namespaces, path+".namespaces"),
		names:         c.globs(r.Names, path+".names"),
		paths:         c.globs(r.NonResourceURLs, path+".nonResourceURLs"),
	}
	if k.onlyResources && k.onlyURL {
		c.addf(path+".nonResourceURLs", "a request is for a resource or for another path, make two entries of this one")
	}
	for i, text := range r.NonResourceURLs {
		if text != "" && text[0] != '/' && text[0] != '*' {
			c.addf(at(path+".nonResourceURLs", i), "%s, want a path that starts with '/'", quote(text))
		}
	}
	k.verbs = c.verbs(r.Verbs, path+".verbs", k)
	if c.fits(r.APIGroups, path+".apiGroups") {
		for i, text := range r.APIGroups {
			g := glob{parts: []string{""}} // the core group
			if text != "" {
				g = c.glob(text, at(path+".apiGroups", i))
			}
			k.groups = append(k.groups, g)
		}
	}
	if c.fits(r.Resources, path+".resources") {
		for i, text := range r.Resources {
			k.resources = append(k.resources, c.resource(text, at(path+".resources", i)))
		}
	}
	return k
}

// verbs refuses those that no request has, which would be a rule without effect.
func (c *compiler) verbs(texts []string, path string, k kubernetesItem) []string {
	var possible []string
	if !k.onlyURL {
		possible = append(possible, resourceVerbs...)
	}
	if !k.onlyResources {
		possible = append(possible, methodVerbs...)
	}
	if !c.fits(texts, path) || slices.Contains(texts, wildcard) && len(texts) == 1 {
		return nil
	}
	for i, verb := range texts {
		switch {
		case verb == wildcard:
			c.addf(at(path, i), "\"*\" means all verbs, leave out the others")
		case !slices.Contains(possible, verb):
			slices.Sort(possible)
			c.addf(at(path, i), "no request has the verb %s, want one of %s", quote(verb), strings.Join(slices.Compact(possible), ", "))
		}
	}
	return slices.Clone(texts)
}

func (c *compiler) resource(text, path string) resource {
	name, sub, hasSub := strings.Cut(text, "/")
	switch {
	case text == "":
		c.addf(path, "empty, leave it out or give a value")
	case text == "*/*":
		c.addf(path, "%s, write \"*\" for everything, or the resources whose subresources are meant", quote(text))
	case name == "" || hasSub && sub == "" || !resourcePart(name) || hasSub && !resourcePart(sub):
		c.addf(path, "%s, want \"pods\", \"pods/log\", \"pods/*\", \"*/scale\" or \"*\", in lower case as in URLs", quote(text))
	}
	r := resource{name: name, sub: sub}
	if name == wildcard {
		r.name = ""
		if !hasSub {
			r.sub = wildcard
		}
	}
	return r
}

// resourcePart tells what can be the plural name of a resource or a subresource.
func resourcePart(s string) bool {
	return s == wildcard || len(s) <= maxText && !strings.ContainsFunc(s, notInName)
}

func (c *compiler) service(r ServiceRule, path string, deny bool) serviceItem {
	s := serviceItem{
		namespace: c.label(r.Namespace, path+".namespace"),
		name:      c.label(r.Name, path+".name"),
	}
	if r.Scheme != "" {
		c.oneOf(path+".scheme", r.Scheme, "http", "https")
		s.scheme = r.Scheme
	}
	if r.Port == "" || r.Port == wildcard {
		return s
	}
	s.port = r.Port
	if number, err := parsePort(r.Port); err == nil {
		s.number = number
		return s
	}
	if err := cause(route.CheckTarget(wire.Service("x", "x", r.Port, ""))); err != nil {
		c.addf(path+".port", "%w", err)
	} else if deny {
		c.addf(path+".port", "%s is a name, and the port could still be asked for by its number: deny the number", quote(r.Port))
	}
	return s
}

// label checks a glob of DNS labels, which is how services and namespaces are
// named.
func (c *compiler) label(text, path string) glob {
	if text == "" {
		c.addf(path, "required, \"*\" means all")
		return glob{parts: []string{""}}
	}
	if strings.Trim(text, wildcard) != "" {
		if err := cause(route.CheckTarget(wire.Service(strings.ReplaceAll(text, wildcard, "x"), "x", "", ""))); err != nil {
			c.addf(path, "%s, only lower-case letters, digits, '-' and \"*\" can match", quote(text))
		}
	}
	return c.glob(text, path)
}

// cause takes the hop off an error about what is written in a policy.
func cause(err error) error {
	if f := fault.As(err); f != nil {
		return f.Err
	}
	return err
}

func (c *compiler) tcp(r TCPRule, path string, _ bool) tcpItem {
	if len(r.Hosts)+len(r.CIDRs) == 0 {
		c.addf(path, "want hosts or cidrs, hosts: [\"*\"] means every target")
	}
	t := tcpItem{hosts: c.globs(r.Hosts, path+".hosts")}
	for i, text := range r.Hosts {
		if err := checkHostGlob(text); err != nil {
			c.addf(at(path+".hosts", i), "%w", err)
		}
	}
	if c.fits(r.CIDRs, path+".cidrs") {
		for i, text := range r.CIDRs {
			prefix, err := parseCIDR(text)
			if err != nil {
				c.addf(at(path+".cidrs", i), "%w", err)
			}
			t.cidrs = append(t.cidrs, prefix)
		}
	}
	if c.fits(r.Ports, path+".ports") {
		for i, text := range r.Ports {
			ports, err := parsePorts(text)
			if err != nil {
				c.addf(at(path+".ports", i), "%w", err)
			}
			t.ports = append(t.ports, ports...)
		}
	}
	return t
}

// checkHostGlob refuses what no name matches in the spelling that targets have.
func checkHostGlob(text string) error {
	if text == "" || text == wildcard {
		return nil // the first is reported as a glob
	}
	if strings.Trim(text, "0123456789.:*/%") == "" {
		return fmt.Errorf("%s looks like addresses, which cidrs are for", quote(text))
	}
	if err := cause(route.CheckTarget(wire.Address(strings.ReplaceAll(text, wildcard, "x"), 1))); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return fmt.Errorf("%s is an address, which cidrs are for", quote(text))
	}
	return nil
}

// parseCIDR reads a network or a single address, in the spelling that they have
// after resolution.
func parseCIDR(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	addr, addrErr := netip.ParseAddr(text)
	if addrErr == nil {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%s, want a network as 10.0.0.0/8 or an address", quote(text))
	case addr.Zone() != "":
		return netip.Prefix{}, errors.New("has a zone, leave it out")
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is IPv4 written as IPv6, write %s", quote(text), prefix.Addr().Unmap())
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits after its length, write %s", quote(text), prefix.Masked())
	default:
		return prefix, nil
	}
}
