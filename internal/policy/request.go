package policy

import (
	"context"
	"errors"
	"net/netip"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/culvertdev/culvert/internal/wire"
)

// Request is what is decided about: who wants what where. Exactly one of Kubernetes,
// KubernetesTLS, Service, TCP, Impersonate and Anything is set; another number of them is
// denied. It is read and never kept.
type Request struct {
	// User is who asks, under the name and groups of the side that decides: at the
	// hub those of the hub (after an impersonation that was allowed, the one taken
	// on), at an agent those that the cluster sees. Nil is denied, unless
	// UserUnknown is set.
	User user.Info
	// UserUnknown is for agents, where a session does not say who asks. Then rules
	// with users or groups allow nothing, and deny.
	UserUnknown bool
	// Cluster is where.
	Cluster Cluster

	// Kubernetes is a request to the cluster's Kubernetes API, see [Attributes]. Its
	// own user is not looked at.
	Kubernetes authorizer.Attributes
	// KubernetesTLS asks for the API server itself, with TLS between the caller and
	// it: what is requested is not known, now or later. A rule that allows all of the
	// Kubernetes API allows it, and every rule that denies any of it denies it.
	KubernetesTLS bool
	// Service is a service of the cluster.
	Service *ServiceTarget
	// TCP is a raw TCP target.
	TCP *TCPTarget
	// Impersonate is an identity that User wants to take on.
	Impersonate *Impersonation
	// Anything asks whether there is a target of the cluster that User may reach, so that
	// it is of use to know of the cluster. What is allowed for some targets alone counts;
	// what is denied counts where it is every target of its kind.
	Anything bool

	// Early is for a look before names are resolved, to refuse what can only be
	// refused: the number of a port or the addresses of a name that are not known
	// yet are taken to be what is allowed. What passes has to be decided again when
	// they are known. A hub, which never knows them, does not set it.
	Early bool
}

// Cluster is a cluster as the hub knows it. At an agent, it has the agent's own
// name and no labels.
type Cluster struct {
	Name   string
	Labels map[string]string
}

// ServiceTarget is a service as it was asked for, in the spelling of
// [route.CheckTarget].
type ServiceTarget struct {
	Namespace, Name string
	// Port is a number, a name, or empty for the service's own.
	Port string
	// Scheme is "http", "https" or empty.
	Scheme string
	// Number is the port's number where it is known other than from Port; 0 is
	// unknown.
	Number uint16
}

// TCPTarget is a raw TCP target as it was asked for, in the spelling of
// [route.CheckTarget].
type TCPTarget struct {
	// Host is a name or an address.
	Host string
	Port uint16
	// Addresses are all that the target is known to have; an address in Host is
	// known without them.
	Addresses []netip.Addr
}

// Impersonation is the identity that is asked for. Empty parts are not asked for.
type Impersonation struct {
	User      string
	UID       string
	Groups    []string
	ExtraKeys []string
}

// Decision is the outcome for one request. The zero value denies.
type Decision struct {
	// Allowed is the outcome.
	Allowed bool
	// Rule names what decided: a rule, [RuleDefault], or [RuleInvalid] for a request
	// that no rule could be held against.
	Rule string
	// Reason is one sentence for the caller and the audit log. It has no more of
	// the policy in it than the rule's name.
	Reason string
}

// Names in [Decision.Rule] that are no rules; none can have them.
const (
	RuleDefault = "(default)"
	RuleInvalid = "(invalid)"
)

// Authorizer decides about requests: [*Policy], [*File], [All] of several, and
// the reviewer of package review do. An error is a [*fault.Error] that says who
// could not decide; the request is refused with it (503), and never passed on. The
// methods are safe for concurrent use.
type Authorizer interface {
	Authorize(ctx context.Context, r Request) (Decision, error)
}

// errKind is for a target that no request is made of.
var errKind = errors.New("policy: a target of this kind has no request")

// SetTarget makes r a request for a service or a raw TCP target. For the
// Kubernetes API, set r.Kubernetes to what [Attributes] gives; such a target is an
// error here, and so is one of an unknown kind. TLS to the Kubernetes API, raw as
// it is, is one that it takes.
func (r *Request) SetTarget(t wire.Target) error {
	switch t.Kind {
	case wire.TargetKubernetesTLS:
		r.KubernetesTLS = true
	case wire.TargetService:
		r.Service = &ServiceTarget{Namespace: t.Namespace, Name: t.Name, Port: t.Port, Scheme: t.Scheme}
	case wire.TargetAddress:
		r.TCP = &TCPTarget{Host: t.Host, Port: t.PortNumber}
	default:
		return errKind
	}
	return nil
}
