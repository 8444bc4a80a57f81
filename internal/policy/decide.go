package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// query is a request with all that is looked at taken out of it once. It lives on
// the stack of a decision.
type query struct {
	kind     kind
	anything bool // some target of the kind
	deny     bool // which rules are asked
	early    bool
	cluster  Cluster

	known     bool // who asks
	anonymous bool
	user      string
	groups    []string

	kubernetes attributes
	sealed     bool // nobody sees what is asked of the Kubernetes API

	service ServiceTarget
	number  uint16 // of the service's port, 0 unknown

	tcp     TCPTarget
	literal netip.Addr // valid when the host is an address

	part  part
	value string // of part
}

// attributes are those of an authorizer.Attributes.
type attributes struct {
	isResource                                  bool
	verb, group, resource, sub, namespace, name string
	path                                        string
}

// Decide decides about a request. It allocates only to say why it denies.
func (p *Policy) Decide(r Request) Decision {
	if p == nil {
		return Decision{Rule: RuleInvalid, Reason: "there is no policy"}
	}
	q, err := newQuery(&r)
	if err != nil {
		return Decision{Rule: RuleInvalid, Reason: err.Error()}
	}
	switch {
	case q.kind == kindImpersonate:
		return p.decideImpersonation(&q, r.Impersonate)
	case q.anything:
		return p.decideAnything(&q)
	}
	return p.decide(&q)
}

func (p *Policy) decide(q *query) Decision {
	if d, denied := p.denied(q); denied {
		return d
	}
	q.deny = false
	if i := p.index[q.kind].allow.find(p, q); i != none {
		return Decision{Allowed: true, Rule: p.rules[i].name, Reason: "a rule of the policy allows it"}
	}
	if q.kind == kindKubernetes && p.document.Default == DefaultKubernetes && !q.anonymous {
		return Decision{Allowed: true, Rule: RuleDefault, Reason: "the policy leaves the Kubernetes API to the cluster's own RBAC"}
	}
	return Decision{Rule: RuleDefault, Reason: notAllowed[q.kind]}
}

var notAllowed = [kinds]string{
	kindKubernetes:  "no rule of the policy allows this request",
	kindService:     "no rule of the policy allows this service",
	kindTCP:         "no rule of the policy allows this address",
	kindImpersonate: "no rule of the policy allows this impersonation",
}

func (p *Policy) denied(q *query) (Decision, bool) {
	q.deny = true
	i := p.index[q.kind].deny.find(p, q)
	if i == none {
		return Decision{}, false
	}
	r := &p.rules[i]
	return Decision{Rule: r.name, Reason: fmt.Sprintf("rule %q of the policy denies it%s", r.name, r.match(q).why())}, true
}

// decideImpersonation decides about each part like about a request of its own, as
// a kube-apiserver does.
func (p *Policy) decideImpersonation(q *query, asked *Impersonation) Decision {
	var allowed Decision
	for kind, values := range asked.each() {
		for _, value := range values {
			q.part, q.value = part(kind), value
			d := p.decide(q)
			if !d.Allowed {
				d.Reason += ": " + partNames[kind] + " " + quote(value)
				return d
			}
			if allowed.Rule == "" {
				allowed = d
			}
		}
	}
	return allowed
}

var partNames = [parts]string{partUser: "user", partUID: "UID", partGroup: "group", partExtra: "extra key"}

// each returns what is asked for by its kind. Keys come from a map: in their own
// order, an answer would name now one of them and now another.
func (i *Impersonation) each() [parts][]string {
	all := [parts][]string{partGroup: i.Groups, partExtra: slices.Sorted(slices.Values(i.ExtraKeys))}
	if i.User != "" {
		all[partUser] = []string{i.User}
	}
	if i.UID != "" {
		all[partUID] = []string{i.UID}
	}
	return all
}

var (
	errNobody  = errors.New("the request has no user")
	errTargets = errors.New("the request is not for exactly one target")
)

// newQuery refuses what no rule can be held against.
func newQuery(r *Request) (query, error) {
	q := query{early: r.Early, cluster: r.Cluster, known: !r.UserUnknown}
	if q.known {
		if r.User == nil || r.User.GetName() == "" {
			return q, errNobody
		}
		q.user, q.groups, q.anonymous = r.User.GetName(), r.User.GetGroups(), anonymous(r.User)
	}
	targets := 0
	var err error
	if r.Kubernetes != nil {
		targets, q.kind = targets+1, kindKubernetes
		q.setKubernetes(r)
	}
	if r.KubernetesTLS {
		targets, q.kind, q.sealed = targets+1, kindKubernetes, true
	}
	if r.Service != nil {
		targets, q.kind = targets+1, kindService
		err = q.setService(r.Service)
	}
	if r.TCP != nil {
		targets, q.kind = targets+1, kindTCP
		err = q.setTCP(r.TCP)
	}
	if r.Impersonate != nil {
		targets, q.kind = targets+1, kindImpersonate
		err = checkImpersonation(r.Impersonate, q.known)
	}
	if r.Anything {
		targets, q.anything = targets+1, true
		err = checkAnything(q.known)
	}
	if targets != 1 {
		return q, errTargets
	}
	return q, err
}

func (q *query) setKubernetes(r *Request) {
	a := r.Kubernetes
	q.kubernetes = attributes{
		isResource: a.IsResourceRequest(), verb: a.GetVerb(), group: a.GetAPIGroup(), resource: a.GetResource(),
		sub: a.GetSubresource(), namespace: a.GetNamespace(), name: a.GetName(), path: a.GetPath(),
	}
}

// Rules are compared with one spelling of names. A caller that has another one
// would get around them.
func (q *query) setService(t *ServiceTarget) error {
	if err := cause(route.CheckTarget(wire.Service(t.Namespace, t.Name, t.Port, t.Scheme))); err != nil {
		return err
	}
	q.service, q.number = *t, t.Number
	if number, err := strconv.ParseUint(t.Port, 10, 16); err == nil {
		if q.number != 0 && q.number != uint16(number) {
			return errTargets
		}
		q.number = uint16(number)
	}
	return nil
}

func (q *query) setTCP(t *TCPTarget) error {
	if err := cause(route.CheckTarget(wire.Address(t.Host, t.Port))); err != nil {
		return err
	}
	q.tcp = *t
	if c := t.Host[len(t.Host)-1]; c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c == ':' {
		if literal, err := netip.ParseAddr(t.Host); err == nil {
			q.literal = plain(literal)
		}
	}
	return nil
}

func checkImpersonation(i *Impersonation, known bool) error {
	switch {
	case !known:
		return errNobody
	case i.User == "" && i.UID == "" && len(i.Groups) == 0 && len(i.ExtraKeys) == 0:
		return errTargets
	default:
		return nil
	}
}
