package https

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// authenticate finds out who calls, as whom they want to act, and who that is on
// the cluster.
func (h *Handler) authenticate(v *visit) error {
	v.takeCredential()
	judge := ""
	if v.to.Target.Kind == wire.TargetKubernetesAPI {
		judge = v.to.Cluster
	}
	if err := h.identify(v, judge); err != nil {
		return err
	}
	caller, err := identity.Assume(v.r.Context(), v.r.Header, v.caller, h.mayImpersonate(v))
	if err != nil {
		return err
	}
	v.caller = caller
	if caller.PassThrough() {
		v.outgoing = http.Header{"Authorization": {caller.Authorization()}}
		return nil
	}
	mapped, err := h.cfg.Map(caller.User)
	if err != nil {
		return err
	}
	v.mapped = mapped
	v.outgoing = make(http.Header, 4)
	if err := mapped.Apply(v.outgoing); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "map identity", Code: wire.CodePermissionDenied, Err: err}
	}
	// A service does not see who calls; the agent's policy does.
	if v.forService != nil && judge == "" {
		v.outgoing["Authorization"] = v.forService
	}
	return nil
}

// mayImpersonate asks the policy whether a caller may act as somebody else on the
// cluster that the request is for.
func (h *Handler) mayImpersonate(v *visit) identity.MayImpersonate {
	return func(ctx context.Context, caller user.Info, as identity.Assumed) (bool, string, error) {
		labels, err := h.labels(v.to.Cluster)
		if err != nil {
			return false, "", err
		}
		decision, err := h.decide(ctx, policy.Request{
			User: caller, Cluster: policy.Cluster{Name: v.to.Cluster, Labels: labels},
			Impersonate: &policy.Impersonation{
				User: as.User, UID: as.UID, Groups: as.Groups, ExtraKeys: slices.Collect(maps.Keys(as.Extra)),
			},
		})
		if err == nil && !decision.Allowed {
			v.decision, v.decided = decision, true
		}
		return decision.Allowed, decision.Reason, err
	}
}

// identify finds out who calls. judge is the cluster that may, where the hub
// cannot.
func (h *Handler) identify(v *visit, judge string) error {
	caller, err := h.cfg.Identify(v.r, judge)
	h.cfg.Observer.Metrics.Authenticated(string(caller.Method), telemetry.OutcomeOf(err))
	if err != nil {
		v.caller.Method = caller.Method // who refused, or failed
		return err
	}
	v.caller = caller
	v.seen.User(caller.User.GetName())
	if caller.Method == identity.MethodCertificate {
		return identity.CheckOrigin(v.r)
	}
	return nil
}

// takeCredential puts the hub's credential where authenticators look for it. What
// the caller sent in its place is then for the service.
func (v *visit) takeCredential() {
	credential := v.r.Header[HeaderCredential]
	if len(credential) == 0 {
		return
	}
	v.forService = v.r.Header["Authorization"]
	v.r.Header["Authorization"] = credential
}
