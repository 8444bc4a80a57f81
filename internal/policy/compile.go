package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a policy. They are far above what people write, and keep a file from
// taking the memory and time of whoever reads it.
const (
	maxRules    = 4096
	maxEntries  = 1024
	maxRuleName = 63
)

// kind is what a request is about.
type kind int

const (
	kindKubernetes kind = iota
	kindService
	kindTCP
	kindImpersonate
	kinds
)

// rule is a checked [Rule].
type rule struct {
	name   string
	deny   bool
	anyone bool // no users and groups
	users  []glob
	groups []glob

	clusters []glob  // none means all
	labels   []label // all of them

	kubernetes  []kubernetesItem
	services    []serviceItem
	tcp         []tcpItem
	impersonate []impersonateItem
}

type label struct {
	key   string
	value glob
}

type kubernetesItem struct {
	verbs                  []string // none means all
	groups                 []glob
	resources              []resource
	namespaces, names      []glob
	paths                  []glob
	onlyResources, onlyURL bool
}

// resource is an entry of [KubernetesRule.Resources]. An empty name is all; an
// empty sub is none, "*" is all.
type resource struct{ name, sub string }

type serviceItem struct {
	namespace, name glob
	port            string // empty means all
	number          uint16 // of port, 0 for a name
	scheme          string // empty means both
}

type tcpItem struct {
	hosts []glob
	cidrs []netip.Prefix
	ports []portRange
}

type impersonateItem [parts][]glob

// part is one of what an impersonation asks for, each of which is decided.
type part int

const (
	partUser part = iota
	partUID
	partGroup
	partExtra
	parts
)

// compiler makes a policy of a document.
type compiler struct {
	problems

	agent bool
}

func compile(d Document, o Options, lines map[string]int) (*Policy, error) {
	c := &compiler{problems: problems{lines: lines}, agent: o.Agent}
	c.oneOf("apiVersion", d.APIVersion, APIVersion)
	c.oneOf("kind", d.Kind, Kind)
	d.Default = cmp.Or(d.Default, DefaultKubernetes)
	c.oneOf("default", string(d.Default), string(DefaultKubernetes), string(DefaultDeny))
	if len(d.Rules) > maxRules {
		c.addf("rules", "%d rules, at most %d are allowed", len(d.Rules), maxRules)
		return nil, c.err()
	}
	p := &Policy{document: d, rules: make([]rule, 0, len(d.Rules))}
	first := map[string]int{}
	for i, r := range d.Rules {
		path := "rules[" + strconv.Itoa(i) + "]"
		if before, ok := first[r.Name]; ok && r.Name != "" {
			c.addf(path+".name", "%q is the name of rules[%d] too, a name says which rule decided", r.Name, before)
		} else {
			first[r.Name] = i
		}
		p.rules = append(p.rules, c.rule(r, path))
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	p.makeIndex()
	return p, nil
}

// oneOf reports another value than the allowed ones.
func (c *compiler) oneOf(path, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	quoted := make([]string, 0, len(allowed))
	for _, a := range allowed {
		quoted = append(quoted, strconv.Quote(a))
	}
	if value == "" {
		c.addf(path, "required: %s", strings.Join(quoted, " or "))
		return
	}
	c.addf(path, "%s, want %s", quote(value), strings.Join(quoted, " or "))
}

// quote bounds what of a file gets into an error.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func (c *compiler) rule(r Rule, path string) rule {
	c.ruleName(r.Name, path+".name")
	c.oneOf(path+".effect", string(r.Effect), string(Allow), string(Deny))
	made := rule{
		name: r.Name, deny: r.Effect == Deny, anyone: len(r.Users)+len(r.Groups) == 0,
		users:  c.globs(r.Users, path+".users"),
		groups: c.globs(r.Groups, path+".groups"),
	}
	if r.Clusters != nil {
		c.clusters(&made, *r.Clusters, path+".clusters")
	}
	if len(r.Kubernetes)+len(r.Services)+len(r.TCP)+len(r.Impersonate) == 0 {
		c.addf(path, "says of nothing what is allowed or denied, want kubernetes, services, tcp or impersonate")
	}
	if c.agent && len(r.Impersonate) > 0 {
		c.addf(path+".impersonate", "decided at the hub, leave it out of an agent's policy")
	}
	made.kubernetes = items(c, r.Kubernetes, path+".kubernetes", made.deny, c.kubernetes)
	made.services = items(c, r.Services, path+".services", made.deny, c.service)
	made.tcp = items(c, r.TCP, path+".tcp", made.deny, c.tcp)
	made.impersonate = items(c, r.Impersonate, path+".impersonate", made.deny, c.impersonate)
	return made
}

func (c *compiler) ruleName(name, path string) {
	switch {
	case name == "":
		c.addf(path, "required: refusals and audit lines name the rule")
	case len(name) > maxRuleName:
		c.addf(path, "%d characters, at most %d are allowed", len(name), maxRuleName)
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.ContainsFunc(name, notInName):
		c.addf(path, "%s, only lower-case letters, digits, '-' and '.' are allowed", quote(name))
	}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
}

func (c *compiler) clusters(made *rule, r ClusterRule, path string) {
	if c.agent {
		c.addf(path, "an agent serves one cluster and knows no labels, leave it out of an agent's policy")
		return
	}
	if len(r.Names)+len(r.Labels) == 0 {
		c.addf(path, "want names or labels, or leave it out for all clusters")
	}
	made.clusters = c.globs(r.Names, path+".names")
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		value := r.Labels[key]
		at := path + ".labels." + key
		if err := checkText(key); err != nil {
			c.addf(at, "key: %w", err)
		}
		// The empty value is one that a label can have.
		g := glob{parts: []string{""}}
		if value != "" {
			g = c.glob(value, at)
		}
		made.labels = append(made.labels, label{key, g})
	}
}

// items checks the items of one kind.
func items[R, I any](c *compiler, rules []R, path string, deny bool, check func(R, string, bool) I) []I {
	if len(rules) > maxEntries {
		c.addf(path, "%d entries, at most %d are allowed", len(rules), maxEntries)
		return nil
	}
	made := make([]I, 0, len(rules))
	for i, r := range rules {
		made = append(made, check(r, path+"["+strconv.Itoa(i)+"]", deny))
	}
	return made
}

func (c *compiler) glob(text, path string) glob {
	g, err := newGlob(text)
	if err != nil {
		c.addf(path, "%w", err)
		return glob{parts: []string{""}}
	}
	return g
}

func (c *compiler) globs(texts []string, path string) []glob {
	if !c.fits(texts, path) {
		return nil
	}
	var all []glob
	for i, text := range texts {
		all = append(all, c.glob(text, path+"["+strconv.Itoa(i)+"]"))
	}
	return all
}

func (c *compiler) fits(texts []string, path string) bool {
	if len(texts) > maxEntries {
		c.addf(path, "%d entries, at most %d are allowed", len(texts), maxEntries)
		return false
	}
	return true
}

func (c *compiler) impersonate(r ImpersonateRule, path string, _ bool) impersonateItem {
	if len(r.Users)+len(r.Groups)+len(r.UIDs)+len(r.ExtraKeys) == 0 {
		c.addf(path, "want users, groups, uids or extraKeys")
	}
	return impersonateItem{
		partUser:  c.globs(r.Users, path+".users"),
		partUID:   c.globs(r.UIDs, path+".uids"),
		partGroup: c.globs(r.Groups, path+".groups"),
		partExtra: c.globs(r.ExtraKeys, path+".extraKeys"),
	}
}

// at is the path of an element.
func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
