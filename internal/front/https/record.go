package https

import (
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// record writes the audit line of a request that has ended.
func (h *Handler) record(v *visit) {
	switch {
	case v.quiet || h.cfg.Audit == nil:
	case v.session != nil:
		v.session.End(v.finish)
	default:
		e := v.event()
		e.Stage = audit.StageRequest
		v.progress(&e)
		v.finish(&e)
		h.cfg.Audit.Record(&e)
	}
}

// begin writes the line of an upgraded stream's beginning.
func (h *Handler) begin(v *visit) {
	if h.cfg.Audit == nil {
		return
	}
	e := v.event()
	e.Status = v.x.Status()
	v.session = h.cfg.Audit.Begin(&e, v.progress)
}

// event is what is known of a request by now.
func (v *visit) event() audit.Event {
	ctx := v.r.Context()
	e := audit.Event{
		Start: v.x.Start(), RequestID: answer.RequestID(ctx), TraceID: telemetry.TraceID(ctx),
		Authentication: string(v.caller.Method), Source: v.r.RemoteAddr,
		Cluster: v.to.Cluster, Agent: v.agent(), Method: v.r.Method, Path: v.path,
	}
	if v.caller.User != nil {
		self := identity.Real(v.caller.User)
		e.User = who(self)
		if self != v.caller.User {
			e.Impersonated = who(v.caller.User)
		}
	}
	if v.mapped.User != "" {
		e.ClusterUser = audit.Identity{Name: v.mapped.User, UID: v.mapped.UID, Groups: v.mapped.Groups}
	}
	if v.to.Target.Kind != wire.TargetUnknown {
		e.Target = v.to.Target.String()
	}
	if a := v.attributes; a != nil {
		e.Verb, e.APIGroup, e.APIVersion = a.Verb, a.APIGroup, a.APIVersion
		e.Resource, e.Subresource, e.Namespace, e.Name = a.Resource, a.Subresource, a.Namespace, a.Name
	}
	if v.decided {
		e.Verdict, e.Rule, e.Reason = audit.Deny, v.decision.Rule, v.decision.Reason
		if v.decision.Allowed {
			e.Verdict = audit.Allow
		}
	}
	return e
}

func who(u user.Info) audit.Identity {
	return audit.Identity{Name: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
}

// progress says how much went over by now.
func (v *visit) progress(e *audit.Event) { e.Received, e.Sent = v.x.Received(), v.x.Sent() }

// finish says how the request ended.
func (v *visit) finish(e *audit.Event) {
	e.Status, e.End = v.x.Status(), audit.EndCompleted
	if f := v.x.Fault(); f != nil {
		e.Hop, e.Code, e.Error = f.Hop.String(), f.Code.String(), f.Error()
		e.End = e.Code
	} else if code := v.x.Header().Get(answer.HeaderError); code != "" {
		// The agent's own answer.
		e.Hop, e.Code = wire.HopAgent.String(), code
	}
}
