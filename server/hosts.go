package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// DefaultHostTemplate is that of Hosts.Template.
const DefaultHostTemplate = route.DefaultHostTemplate

// The values of Hosts.Mode and HostName.Mode.
const (
	ModeTerminate   = "terminate"
	ModePassThrough = "passthrough"
)

// The values of Hosts.Unknown.
const (
	UnknownRefuse      = "refuse"
	UnknownMisdirected = "misdirected"
)

// Hosts gives clusters host names on the hub's port, beside their paths.
type Hosts struct {
	// Domain is where each cluster has a name by Template. Its DNS has to lead
	// "*.<domain>" to the hub. Default: there are no such names.
	Domain string `json:"domain,omitempty"`
	// Template makes the name of a cluster: {{uid}} is its name, {{server}} the
	// domain. Default "cluster-{{uid}}.{{server}}".
	Template string `json:"template,omitempty"`
	// Mode of these names: "terminate", where the hub authenticates callers as it
	// does by path, or "passthrough", where TLS and its credentials go to the
	// cluster's API server. Default "terminate".
	Mode string `json:"mode,omitempty"`
	// Names are further ones, and exceptions from Template.
	Names []HostName `json:"names,omitempty"`
	// Unknown is what becomes of clients that ask for a name which neither this nor
	// a certificate of the hub has: "refuse" in the handshake with the alert
	// unrecognized_name, or "misdirected", the HTTP status 421. Default "refuse".
	Unknown string `json:"unknown,omitempty"`
}

// HostName gives one name, or with "*." in front all names one label below, to a
// cluster.
type HostName struct {
	Name    string `json:"name,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// Mode is as in [Hosts]. With "terminate" and Address, the bytes in the TLS go
	// on as they are.
	Mode string `json:"mode,omitempty"`
	// Service is the service that takes requests, as [http:|https:]namespace/name[:port];
	// Address is a host:port in the cluster's network for raw bytes. Default the
	// cluster's Kubernetes API.
	Service string `json:"service,omitempty"`
	Address string `json:"address,omitempty"`
}

// proxyNames are those of API servers in their certificates
// (https://kubernetes.io/docs/setup/best-practices/certificates/). A kubectl whose
// kubeconfig has a proxy-url and one of them as tls-server-name asks for it on the
// way to the proxy, too: client-go has one TLS configuration for both.
var proxyNames = []string{
	"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
}

func (c *Config) hosts() (*route.Hosts, error) {
	h := c.Hosts
	if h == nil {
		return nil, nil
	}
	var problems []error
	template := route.HostTemplate{Domain: h.Domain, Template: h.Template, PassThrough: h.Mode == ModePassThrough}
	if !validMode(h.Mode) {
		problems = append(problems, fmt.Errorf("mode: %.32q is not terminate or passthrough", h.Mode))
	}
	if !slices.Contains([]string{"", UnknownRefuse, UnknownMisdirected}, h.Unknown) {
		problems = append(problems, fmt.Errorf("unknown: %.32q is not refuse or misdirected", h.Unknown))
	}
	var rules []route.HostRule
	for i := range h.Names {
		rule, err := h.Names[i].rule()
		if err != nil {
			problems = append(problems, fmt.Errorf("names[%d].%w", i, err))
			continue
		}
		rules = append(rules, rule)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	own := append(c.selfNames(), proxyNames...)
	if host, _, err := net.SplitHostPort(c.Advertise); err == nil {
		own = append(own, host)
	}
	return route.NewHosts(rules, template, own)
}

func validMode(mode string) bool {
	return slices.Contains([]string{"", ModeTerminate, ModePassThrough}, mode)
}

func (n *HostName) rule() (route.HostRule, error) {
	rule := route.HostRule{Name: n.Name, Cluster: n.Cluster, PassThrough: n.Mode == ModePassThrough}
	var err error
	switch {
	case !validMode(n.Mode):
		err = fmt.Errorf("mode: %.32q is not terminate or passthrough", n.Mode)
	case n.Service != "" && n.Address != "":
		err = errors.New("service, address: give one of them")
	case n.Service != "":
		if rule.Target, err = route.ParseService(n.Service); err != nil {
			err = fmt.Errorf("service: %w", err)
		}
	case n.Address != "":
		if rule.Target, err = route.ParseAddress(n.Address); err != nil {
			err = fmt.Errorf("address: %w", err)
		}
	case rule.PassThrough:
		rule.Target = wire.KubernetesTLS()
	default:
		rule.Target = wire.KubernetesAPI()
	}
	return rule, err
}

// names decides what the names mean that clients ask for.
type names struct {
	hosts   *route.Hosts
	serving *serving
	// misdirected answers unknown names with the hub's certificate and 421.
	misdirected bool
	// web is for HTTPS, stream for what is in the TLS whatever it is.
	web, stream *tls.Config
}

func newNames(cfg Config, hosts *route.Hosts, t *trust) *names {
	n := &names{hosts: hosts, serving: t.serving, web: t.clients()}
	n.misdirected = cfg.Hosts != nil && cfg.Hosts.Unknown == UnknownMisdirected
	n.stream = t.clients()
	n.stream.NextProtos = nil
	return n
}

// ByName is for [front.Config].
func (n *names) byName(name string) front.Named {
	if host, ok := n.hosts.Lookup(name); ok {
		switch {
		case host.PassThrough:
			return front.Named{Host: &host}
		case host.Target.Raw():
			return front.Named{TLS: n.stream, Host: &host}
		}
		return front.Named{TLS: n.web}
	}
	return n.only(n.web)(name)
}

// only returns a byName for a front end that has nothing to do with clusters' names.
func (n *names) only(cfg *tls.Config) func(name string) front.Named {
	return func(name string) front.Named {
		if name == "" || n.misdirected || n.forProxy(name) || n.serving.covers(name) == nil {
			return front.Named{TLS: cfg}
		}
		return front.Named{}
	}
}

// forProxy tells a name that only clients of the proxy ask for.
func (n *names) forProxy(name string) bool {
	return n.hosts != nil && slices.Contains(proxyNames, strings.ToLower(name))
}

// hostOf returns the cluster's host name that a request is for, if it is for one.
// A request that came for one name and is about another is refused: the handshake
// decided whom it may be from, and a certificate that several names share must not
// mix them (RFC 9110 section 15.5.20).
func (n *names) hostOf(r *http.Request) (route.Host, bool, error) {
	authority := route.HostName(r.Host)
	host, ok := n.hosts.Lookup(authority)
	if ok && host.Target.Raw() {
		// Only who asks for the name in TLS gets there, and what is sent is no request.
		return route.Host{}, false, misdirected("the host %.253q takes no requests but bytes, of connections that ask for it by SNI", authority)
	}
	if r.TLS == nil || r.TLS.ServerName == "" {
		return host, ok, nil
	}
	name := r.TLS.ServerName
	asked, found := n.hosts.Lookup(name)
	switch {
	case found && !ok && isAddress(authority):
		// What a client calls the server by its address says nothing about the host.
		return asked, true, nil
	case found != ok || ok && (asked != host || !strings.EqualFold(strings.TrimSuffix(name, "."), authority)):
		return route.Host{}, false, misdirected("the connection is for the host %.253q, and the request for %.253q", name, authority)
	case !found && n.forProxy(name):
		return route.Host{}, false, misdirected("the name %.64q is for CONNECT alone, as a proxy", name)
	case !found && n.misdirected && n.serving.covers(name) != nil:
		return route.Host{}, false, misdirected("no host %.253q is known here", name)
	}
	return host, ok, nil
}

// isAddress tells an IP address, or no name at all.
func isAddress(authority string) bool {
	_, err := netip.ParseAddr(authority)
	return authority == "" || err == nil
}

func misdirected(format string, args ...any) error {
	return &fault.Error{Hop: wire.HopHub, Op: "route", Code: wire.CodeMisdirected, Err: fmt.Errorf(format, args...)}
}

// balancers parses ProxyProtocol.From.
func (c *Config) balancers() (front.Balancers, error) {
	if c.ProxyProtocol == nil {
		return nil, nil
	}
	var problems []error
	var all front.Balancers
	for i, text := range c.ProxyProtocol.From {
		network, err := route.ParseNetwork(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("proxyProtocol.from[%d]: %w", i, err))
			continue
		}
		all = append(all, network)
	}
	if len(c.ProxyProtocol.From) == 0 {
		problems = append(problems, errors.New("proxyProtocol.from: required: the load balancers' networks or addresses"))
	}
	return all, errors.Join(problems...)
}

// ProxyProtocol names the load balancers that say where connections come from.
type ProxyProtocol struct {
	// From are their networks or addresses. Each of their connections has to begin
	// with a header of the PROXY protocol, version 1 or 2; nobody else's is read for
	// one.
	From []string `json:"from,omitempty"`
}
