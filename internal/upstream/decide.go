package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Check reports whether target is valid and may be reached, as far as that is
// known when a session opens and no name was resolved. For HTTP, each request is
// decided about before anything is dialled, since only a request says who asks;
// for an address, [Upstream.Dial] decides with what the name leads to. The error
// is a [*fault.Error] of the agent. Check is safe for concurrent use.
func (u *Upstream) Check(target wire.Target) error {
	err := u.check(target)
	u.note(err, false)
	return err
}

func (u *Upstream) check(target wire.Target) error {
	if err := route.CheckTarget(target); err != nil {
		return err
	}
	switch target.Kind {
	case wire.TargetKubernetesAPI:
		if u.kubernetes == nil {
			return refuse(target, errors.New("this agent has no Kubernetes API, give it a kubeconfig or run it in a cluster"))
		}
		return nil
	case wire.TargetKubernetesTLS:
		return u.decideKubernetesTLS(context.Background())
	case wire.TargetService:
		if u.cfg.Policy != nil {
			return nil
		}
		_, err := u.decideService(context.Background(), target, 0, nil)
		return err
	case wire.TargetAddress:
		if u.cfg.ReadOnly {
			return refuse(target, errors.New("the agent is read-only, and nothing tells what raw bytes do"))
		}
		return u.decideAddress(context.Background(), target, nil)
	default:
		return refuse(target, errors.New("unknown kind of target"))
	}
}

// decideKubernetes decides about a request to the API server. who is nil where
// that is not known.
func (u *Upstream) decideKubernetes(r *http.Request, path string, who user.Info) (policy.Decision, error) {
	if u.cfg.Policy == nil && !u.cfg.ReadOnly {
		return policy.Decision{Allowed: true, Rule: policy.RuleDefault}, nil
	}
	decision, err := u.decideReading(r, path, who)
	if err != nil {
		return decision, err
	}
	merged := mergeSlashes(path)
	if merged == path {
		return decision, nil
	}
	// A proxy before the API server may merge them. It must not make more of the
	// request than was decided about.
	return u.decideReading(r, merged, who)
}

func (u *Upstream) decideReading(r *http.Request, path string, who user.Info) (policy.Decision, error) {
	target := wire.KubernetesAPI()
	attributes, err := policy.Attributes(who, r.Method, path, r.URL.RawQuery)
	if err != nil {
		return policy.Decision{Rule: policy.RuleInvalid}, &fault.Error{Hop: wire.HopAgent, Op: opPolicy, Code: wire.CodeInvalidTarget, Target: target.String(), Err: err}
	}
	if u.cfg.ReadOnly {
		if err := readsKubernetes(r, attributes); err != nil {
			return policy.Decision{Rule: ruleReadOnly}, refuse(target, err)
		}
	}
	request := requestOf(who)
	request.Kubernetes = attributes
	return u.decide(r.Context(), target, request, noShorthand)
}

// decideKubernetesTLS decides about TLS between a caller and the API server, where
// nothing that is asked for can be seen. It is what PassThrough allows in another
// form: callers have credentials of the cluster's own.
func (u *Upstream) decideKubernetesTLS(ctx context.Context) error {
	target := wire.KubernetesTLS()
	switch {
	case u.kubernetes == nil:
		return refuse(target, errors.New("this agent has no Kubernetes API, give it a kubeconfig or run it in a cluster"))
	case u.kubernetes.scheme != "https":
		return refuse(target, errors.New("the API server that the agent knows does not speak TLS"))
	case u.cfg.ReadOnly:
		return refuse(target, errors.New("the agent is read-only, and nothing tells what raw bytes do"))
	case !u.cfg.PassThrough:
		return refuse(target, errors.New("the agent lets nobody call the API server with credentials of their own; its owner can: --pass-through"))
	}
	request := requestOf(nil)
	request.KubernetesTLS = true
	_, err := u.decide(ctx, target, request, noShorthand)
	return err
}

// decideService decides about a service, early while number is 0 and its port may
// still turn out to be any.
func (u *Upstream) decideService(ctx context.Context, target wire.Target, number uint16, who user.Info) (policy.Decision, error) {
	if isNumber(target.Port) {
		var err error
		if number, err = portNumber(target.Port); err != nil {
			return policy.Decision{}, err
		}
	}
	request := requestOf(who)
	if err := request.SetTarget(target); err != nil {
		return policy.Decision{}, err
	}
	request.Early, request.Service.Number = number == 0, number
	return u.decide(ctx, target, request, func() (string, error) {
		for _, rule := range u.cfg.Services {
			if rule.matches(target, number) {
				return "--allow-service " + rule.String(), nil
			}
		}
		wanted := ServiceRule{Namespace: target.Namespace, Name: target.Name, Port: target.Port}
		return "", fmt.Errorf("its owner can: --allow-service %v", wanted)
	})
}

// decideAddress decides about a raw address, early while its addresses are not
// known.
func (u *Upstream) decideAddress(ctx context.Context, target wire.Target, addrs []netip.Addr) error {
	request := requestOf(nil)
	if err := request.SetTarget(target); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(target.Host); err == nil {
		addrs = []netip.Addr{judged(addr)}
		if nat64.Contains(addr) {
			// Rules for IPv4 hold for it, whatever it is called.
			request.TCP.Host = addrs[0].String()
		}
	}
	for _, addr := range addrs {
		if kind := carrierKind(addr); kind != "" && !listed(u.cfg.SpecialAddresses, addr, kind) {
			return refuse(target, fmt.Errorf("it leads to %v (%s), which no rule allows", addr, kind))
		}
	}
	request.Early, request.TCP.Addresses = len(addrs) == 0, addrs
	_, err := u.decide(ctx, target, request, func() (string, error) {
		return u.allowedAddress(target, addrs)
	})
	return err
}

// allowedAddress returns the shorthand rule that allows target at addrs. A rule
// with an address lists it, a rule with a name does not list special addresses,
// except for the one name that means such addresses.
func (u *Upstream) allowedAddress(target wire.Target, addrs []netip.Addr) (string, error) {
	hint := errors.New("its owner can: --allow-address " + strings.TrimPrefix(target.String(), "tcp "))
	for _, rule := range u.cfg.Addresses {
		if !rule.matches(target) {
			continue
		}
		name := "--allow-address " + rule.String()
		if _, err := netip.ParseAddr(rule.Host); err == nil {
			return name, nil
		}
		for _, addr := range addrs {
			if kind := specialKind(addr); kind != "" && (rule.Host != localhost || !addr.IsLoopback()) {
				return "", fmt.Errorf("the name leads to %v (%s), which a rule by name does not allow", addr, kind)
			}
		}
		return name, nil
	}
	return "", hint
}

// localhost is always loopback (RFC 6761 section 6.3): who allows it by name means
// that.
const localhost = "localhost"

// ruleReadOnly is in [policy.Decision.Rule] what [Config.ReadOnly] refused.
const ruleReadOnly = "(read-only)"

// opPolicy is in [fault.Error.Op] what rules refused.
const opPolicy = "check policy"

// note counts a decision: every refusal, and what was allowed last.
func (u *Upstream) note(err error, last bool) {
	m := u.cfg.Observer.Metrics
	f := fault.As(err)
	switch {
	case err == nil && !last, err != nil && (f == nil || f.Op != opPolicy && f.Op != opIdentity):
	case err == nil:
		m.Decided(telemetry.Allowed)
	case f.Code == wire.CodePermissionDenied:
		m.Decided(telemetry.Refused)
	default:
		m.Decided(telemetry.Failed)
	}
}

// requestOf returns a request of who, which is nil for a caller whom the hub does
// not name.
func requestOf(who user.Info) policy.Request {
	return policy.Request{User: who, UserUnknown: who == nil}
}

func noShorthand() (string, error) { return "", nil }

// decide asks the policy, and where none of its rules matches the shorthand: so
// that a rule that denies wins over an allow flag, too. What is not allowed is an
// error.
func (u *Upstream) decide(ctx context.Context, target wire.Target, request policy.Request, shorthand func() (string, error)) (policy.Decision, error) {
	decision, err := u.policy.Authorize(ctx, request)
	switch {
	case err != nil:
		return policy.Decision{}, withTarget(explainPolicy(err), target)
	case decision.Allowed:
		return decision, nil
	case decision.Rule != policy.RuleDefault:
		return decision, refuse(target, fmt.Errorf("the agent's policy does not allow it: %s", decision.Reason))
	}
	rule, err := shorthand()
	if rule != "" {
		return policy.Decision{Allowed: true, Rule: rule}, nil
	}
	if err == nil {
		err = errors.New(decision.Reason)
	}
	return decision, refuse(target, fmt.Errorf("the agent's rules do not allow it, %w", err))
}

// explainPolicy returns the fault of a policy that could not decide, as a copy.
func explainPolicy(err error) *fault.Error {
	if f := fault.As(err); f != nil {
		c := *f
		return &c
	}
	return &fault.Error{Hop: wire.HopAgent, Op: opPolicy, Code: wire.CodeUnavailable, Err: err}
}

// addressJudge holds the addresses of a raw target against the rules.
type addressJudge struct {
	u      *Upstream
	target wire.Target
}

// judge returns all of addrs or an error: a name that leads to something allowed
// and to something else beside is not what its rule meant.
func (j addressJudge) judge(ctx context.Context, addrs []netip.Addr) ([]netip.Addr, error) {
	return addrs, j.u.decideAddress(ctx, j.target, allJudged(addrs))
}

// serviceJudge holds the addresses of a service, whose own rule passed, against
// those that no name may lead to.
type serviceJudge struct {
	target wire.Target
	listed []netip.Prefix
	count  *telemetry.Metrics
}

func (j serviceJudge) judge(_ context.Context, addrs []netip.Addr) ([]netip.Addr, error) {
	for _, addr := range allJudged(addrs) {
		if kind := specialKind(addr); kind != "" && !listed(j.listed, addr, kind) {
			j.count.Decided(telemetry.Refused)
			return nil, refuse(j.target, fmt.Errorf("its name leads to %v (%s), where services are not reached unless the agent's owner lists it in specialAddresses", addr, kind))
		}
	}
	return addrs, nil
}

func refuse(target wire.Target, err error) error {
	return &fault.Error{Hop: wire.HopAgent, Op: opPolicy, Code: wire.CodePermissionDenied, Target: target.String(), Err: err}
}

// mergeSlashes returns an escaped path without empty segments. An escaped slash
// is one, as it is to the API server.
func mergeSlashes(path string) string {
	if !strings.Contains(path, "//") && !strings.Contains(path, "%2") {
		return path
	}
	plain := strings.NewReplacer("%2F", "/", "%2f", "/").Replace(path)
	if !strings.Contains(plain, "//") {
		return path
	}
	parts := slices.DeleteFunc(strings.Split(plain, "/"), func(s string) bool { return s == "" })
	return "/" + strings.Join(parts, "/")
}
