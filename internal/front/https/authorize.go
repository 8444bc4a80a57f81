package https

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// authorize asks the policy about the request, as the user that the caller acts
// as.
func (h *Handler) authorize(v *visit) error {
	labels, err := h.labels(v.to.Cluster)
	if err != nil {
		return err
	}
	ask := policy.Request{
		User:    v.caller.User,
		Cluster: policy.Cluster{Name: v.to.Cluster, Labels: labels},
	}
	if v.to.Target.Kind == wire.TargetKubernetesAPI {
		attributes, err := policy.Attributes(v.caller.User, v.r.Method, v.to.UpstreamPath, v.r.URL.RawQuery)
		if err != nil {
			return &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeInvalidTarget, Cluster: v.to.Cluster, Err: err}
		}
		v.attributes = attributes
		ask.Kubernetes = attributes
	} else if err := ask.SetTarget(v.to.Target); err != nil {
		return err
	}
	if v.decision, err = h.decide(v.r.Context(), ask); err != nil {
		return err
	}
	v.decided = true
	if v.decision.Allowed {
		return nil
	}
	return Refused(v.caller.User, v.to.Cluster, v.to.Target, v.decision)
}

// decide asks the policy, and counts what it says.
func (h *Handler) decide(ctx context.Context, ask policy.Request) (policy.Decision, error) {
	decision, err := h.cfg.Policy.Authorize(ctx, ask)
	switch {
	case err != nil:
		h.cfg.Observer.Metrics.Decided(telemetry.Failed)
		if fault.As(err) == nil {
			err = &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeUnavailable, Cluster: ask.Cluster.Name, Err: err}
		}
		return policy.Decision{}, err
	case decision.Allowed:
		h.cfg.Observer.Metrics.Decided(telemetry.Allowed)
	default:
		h.cfg.Observer.Metrics.Decided(telemetry.Refused)
	}
	return decision, nil
}

// labels returns those that rules about clusters are held against. A rule that
// denies by a label must not be missed since nobody could tell.
func (h *Handler) labels(cluster string) (map[string]string, error) {
	labels, err := h.cfg.Labels(cluster)
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeUnavailable, Cluster: cluster, Err: err}
	}
	return labels, nil
}

// Refused is the answer to what a policy does not allow to a user. It names the
// rule that denied or, where none spoke of the request, one that would allow it.
func Refused(who user.Info, cluster string, target wire.Target, decision policy.Decision) *fault.Error {
	f := &fault.Error{
		Hop: wire.HopHub, Op: "check policy", Code: wire.CodePermissionDenied, Cluster: cluster, Target: target.String(),
		Err: errors.New(decision.Reason),
	}
	if decision.Rule == policy.RuleDefault {
		f.Err = fmt.Errorf("%s; a rule of the hub's policy would, such as %s", decision.Reason, example(who.GetName(), cluster, target))
	}
	return f
}

// example is a rule that allows target to a user, in one line of YAML.
func example(name, cluster string, target wire.Target) string {
	what := `kubernetes: [{verbs: ["*"]}]`
	switch target.Kind {
	case wire.TargetService:
		port := cmp.Or(target.Port, "*")
		what = fmt.Sprintf("services: [{namespace: %q, name: %q, port: %q}]", target.Namespace, target.Name, port)
	case wire.TargetAddress:
		field := "hosts"
		if _, err := netip.ParseAddr(target.Host); err == nil {
			field = "cidrs"
		}
		what = fmt.Sprintf("tcp: [{%s: [%q], ports: [\"%d\"]}]", field, target.Host, target.PortNumber)
	}
	return fmt.Sprintf("{name: example, effect: allow, users: [%q], clusters: {names: [%q]}, %s}", name, cluster, what)
}
