package route

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/wire"
)

// The variables of a [HostTemplate]. A cluster's uid is its name.
const (
	varUID    = "{{uid}}"
	varServer = "{{server}}"
)

// DefaultHostTemplate is that of Spectro Proxy.
const DefaultHostTemplate = "cluster-" + varUID + "." + varServer

// Host is what a host name on the hub's port means. It is a plain, comparable
// value.
type Host struct {
	// Rule is the pattern or template that the name matched, for people.
	Rule    string
	Cluster string
	Target  wire.Target
	// PassThrough says that TLS is not the hub's to end: bytes go to the target as
	// they come. Else TLS ends at the hub, and requests go on or, for a target of
	// raw bytes, what was in the TLS.
	PassThrough bool
}

// HostRule gives a name, or with "*." in front all names one label below, to a
// cluster.
type HostRule struct {
	Name    string
	Cluster string
	Target  wire.Target
	// PassThrough is as in [Host].
	PassThrough bool
}

// HostTemplate gives every cluster a name.
type HostTemplate struct {
	// Domain stands for {{server}}. Without it there are no such names.
	Domain string
	// Template has {{uid}} once, and {{server}} at its end. Default
	// [DefaultHostTemplate].
	Template string
	// PassThrough is as in [Host].
	PassThrough bool
}

// Hosts knows the host names of clusters. It is immutable; a nil Hosts knows none.
type Hosts struct {
	exact     map[string]Host
	wildcards map[string]Host // by what follows "*."
	// The template is prefix + cluster + suffix.
	template       string
	prefix, suffix string
	domain         string
	passThrough    bool
}

// NewHosts checks rules and template, and returns nil where there is none. own are
// the hub's own names, which no cluster can have. The error has every problem, with
// the field's path below "hosts".
func NewHosts(rules []HostRule, template HostTemplate, own []string) (*Hosts, error) {
	h := &Hosts{exact: map[string]Host{}, wildcards: map[string]Host{}, passThrough: template.PassThrough}
	problems := h.setTemplate(template)
	for i, rule := range rules {
		if err := h.add(rule, own); err != nil {
			problems = append(problems, fmt.Errorf("names[%d].%w", i, err))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if len(rules) == 0 && template.Domain == "" {
		return nil, nil
	}
	return h, nil
}

func (h *Hosts) setTemplate(t HostTemplate) (problems []error) {
	if t.Domain == "" {
		if t.Template != "" {
			problems = append(problems, errors.New("domain: required with template"))
		}
		return problems
	}
	if err := checkDomain(t.Domain); err != nil {
		return []error{fmt.Errorf("domain: %w", err)}
	}
	h.domain, h.template = t.Domain, t.Template
	if h.template == "" {
		h.template = DefaultHostTemplate
	}
	rest, ok := strings.CutSuffix(h.template, "."+varServer)
	prefix, tail, has := strings.Cut(rest, varUID)
	if !ok || !has || strings.Contains(prefix+tail, "{{") || strings.Contains(prefix, ".") {
		return []error{fmt.Errorf("template: %s, want %s once in the first label, and .%s at the end, such as %q", quote(h.template), varUID, varServer, DefaultHostTemplate)}
	}
	h.prefix, h.suffix = prefix, tail+"."+h.domain
	if err := checkDomain(h.prefix + "x" + h.suffix); err != nil {
		return []error{fmt.Errorf("template: %w", err)}
	}
	return nil
}

// add enters one rule.
func (h *Hosts) add(r HostRule, own []string) error {
	bare, wild := strings.CutPrefix(r.Name, "*.")
	if err := checkDomain(bare); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := CheckCluster(r.Cluster); err != nil {
		return err
	}
	if err := checkTarget(r.Target); err != nil {
		return err
	}
	if r.PassThrough && !r.Target.Raw() {
		return errors.New("mode: a service takes requests, which are in the TLS that passthrough does not open: use terminate, or an address")
	}
	if !r.PassThrough && r.Target.Kind == wire.TargetKubernetesTLS {
		return errors.New("mode: TLS that only the API server reads does not end at the hub")
	}
	into, key := h.exact, bare
	if wild {
		into = h.wildcards
	}
	if had, twice := into[key]; twice {
		return fmt.Errorf("name: %s is there twice, for the clusters %s and %s", quote(r.Name), had.Cluster, r.Cluster)
	}
	if !wild && slices.ContainsFunc(own, func(name string) bool { return strings.EqualFold(name, r.Name) }) {
		return fmt.Errorf("name: %s is a name of the hub itself", quote(r.Name))
	}
	if of, ok := h.templated(bare); ok && !wild && of != r.Cluster {
		return fmt.Errorf("name: %s is by the template the name of the cluster %s", quote(r.Name), of)
	}
	into[key] = Host{Rule: r.Name, Cluster: r.Cluster, Target: r.Target, PassThrough: r.PassThrough}
	return nil
}

// checkDomain accepts lower-case domain names.
func checkDomain(name string) error {
	if err := checkHost(name); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("%s is an address, and has no name in TLS", quote(name))
	}
	if strings.Contains(name, "_") {
		return fmt.Errorf("%s has an underscore, which no certificate can have", quote(name))
	}
	return nil
}

// Lookup returns what a host name means: a name of a rule, of the template, or of a
// wildcard, in this order. Case and one trailing dot do not count. What is not
// known, and an address, is not found.
func (h *Hosts) Lookup(name string) (Host, bool) {
	if h == nil || name == "" {
		return Host{}, false
	}
	name = canonicalHost(name)
	if host, ok := h.exact[name]; ok {
		return host, true
	}
	if cluster, ok := h.templated(name); ok {
		target := wire.KubernetesAPI()
		if h.passThrough {
			target = wire.KubernetesTLS()
		}
		return Host{Rule: h.template, Cluster: cluster, Target: target, PassThrough: h.passThrough}, true
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		host, found := h.wildcards[parent]
		return host, found
	}
	return Host{}, false
}

// templated returns the cluster whose name by the template this is.
func (h *Hosts) templated(name string) (string, bool) {
	if h.domain == "" || len(name) <= len(h.prefix)+len(h.suffix) || !strings.HasPrefix(name, h.prefix) || !strings.HasSuffix(name, h.suffix) {
		return "", false
	}
	cluster := name[len(h.prefix) : len(name)-len(h.suffix)]
	return cluster, CheckCluster(cluster) == nil
}

// NameFor returns a name of a cluster's Kubernetes API whose TLS passes through, or ends
// at the hub, as asked: that of the template, else the first by the alphabet of the rules'
// names, else one that a wildcard is for, with the cluster's name in front. There is none
// longer than DNS allows.
func (h *Hosts) NameFor(cluster string, passThrough bool) (string, bool) {
	if h == nil {
		return "", false
	}
	var names []string
	if h.domain != "" {
		names = append(names, h.prefix+cluster+h.suffix)
	}
	names = append(names, slices.Sorted(maps.Keys(h.exact))...)
	for _, parent := range slices.Sorted(maps.Keys(h.wildcards)) {
		names = append(names, cluster+"."+parent)
	}
	for _, name := range names {
		host, ok := h.Lookup(name)
		if !ok || host.Cluster != cluster || host.PassThrough != passThrough || checkDomain(name) != nil {
			continue
		}
		if kind := host.Target.Kind; kind == wire.TargetKubernetesAPI || kind == wire.TargetKubernetesTLS {
			return name, true
		}
	}
	return "", false
}

// Proxied returns what host and port mean to a client of an HTTP proxy that wants
// TLS with a cluster's API server itself: a cluster's name by the template, whatever
// mode that has, its plain name below the domain, or a name of a pass-through rule.
func (h *Hosts) Proxied(host string, port uint16) (cluster string, target wire.Target, ok bool) {
	if h == nil || port != httpsPort {
		return "", wire.Target{}, false
	}
	host = canonicalHost(host)
	if known, ok := h.Lookup(host); ok {
		switch {
		case known.PassThrough:
			return known.Cluster, known.Target, true
		case known.Target.Kind == wire.TargetKubernetesAPI:
			return known.Cluster, wire.KubernetesTLS(), true
		}
		return "", wire.Target{}, false
	}
	if h.domain == "" {
		return "", wire.Target{}, false
	}
	if name, ok := strings.CutSuffix(host, "."+h.domain); ok && CheckCluster(name) == nil {
		return name, wire.KubernetesTLS(), true
	}
	return "", wire.Target{}, false
}

// ProxiedName returns the host name for [Hosts.Proxied] that leads to a cluster.
func (h *Hosts) ProxiedName(cluster string) (string, bool) {
	if h == nil || h.domain == "" {
		return "", false
	}
	return cluster + "." + h.domain, true
}

// Names returns every name that a certificate of the hub has to have for clients of
// clusters: with "*." where it is a pattern.
func (h *Hosts) Names() []string {
	if h == nil {
		return nil
	}
	var out []string
	for name, host := range h.exact {
		if !host.PassThrough {
			out = append(out, name)
		}
	}
	for name, host := range h.wildcards {
		if !host.PassThrough {
			out = append(out, "*."+name)
		}
	}
	if h.domain != "" && !h.passThrough {
		out = append(out, "*"+h.suffix)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// httpsPort is the port of https URLs (RFC 9110 section 4.2.2).
const httpsPort = 443

// HostName returns the name in a Host field or :authority, without its port and in
// the one spelling; "" where there is none.
func HostName(authority string) string {
	host := authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host = authority[:i]
	}
	return canonicalHost(strings.Trim(host, "[]"))
}
