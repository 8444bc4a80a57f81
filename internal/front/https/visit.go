package https

import (
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxLoggedPath bounds what of a path is logged, in bytes.
const maxLoggedPath = 1024

// visit is one request on its way through the steps, and what they have found out.
// It belongs to the goroutine that serves the request.
type visit struct {
	x *relay.Exchange
	r *http.Request

	// seen tells metrics, traces and the live view.
	seen *telemetry.Request

	// path is the escaped path as it is logged, to is what it means.
	path string
	to   route.Route
	// quiet is for requests that nobody has to see: not audited, and not logged at
	// info unless they fail.
	quiet bool

	// caller is who was authenticated, with whom they act as.
	caller identity.Caller
	// forService is the Authorization that the caller addressed to a service.
	forService []string
	// mapped is the user on the cluster, zero where none is impersonated, and
	// outgoing are the fields that say so there.
	mapped   identity.Impersonation
	outgoing http.Header

	// attributes are those of a request to a Kubernetes API.
	attributes *authorizer.AttributesRecord
	decision   policy.Decision
	decided    bool

	// conn is the session that the request was sent on, the last one where it was
	// sent again.
	conn net.Conn

	// hold is what the request takes of limits.
	hold limit.Hold
	// session has the audit lines of an upgraded request.
	session *audit.Session
}

// end is what is done after every request, however it ended.
func (h *Handler) end(v *visit) {
	v.hold.Release()
	h.log(v)
	h.record(v)
	v.seen.End()
}

// gotConn notes the session that the request is sent on.
func (v *visit) gotConn(conn net.Conn) { v.conn = conn }

// agent is the name of the agent that has, or refused, that session; empty where
// the request was sent to none.
func (v *visit) agent() string {
	if conn, ok := v.conn.(interface{ Agent() string }); ok {
		return conn.Agent()
	}
	return ""
}

// user is the caller's own name, empty for nobody.
func (v *visit) user() string {
	if v.caller.User == nil {
		return ""
	}
	return identity.Real(v.caller.User).GetName()
}

// log writes the line of a request. The query is left out: it may hold tokens.
func (h *Handler) log(v *visit) {
	level, x := slog.LevelInfo, v.x
	if v.quiet && x.Fault() == nil {
		level = slog.LevelDebug
	}
	ctx := v.r.Context()
	if !h.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 13),
		slog.String("request_id", answer.RequestID(ctx)),
		slog.String("cluster", v.to.Cluster),
		slog.String("agent", v.agent()),
		slog.String("user", v.user()),
		slog.String("method", v.r.Method),
		slog.String("path", v.path),
		slog.Int("status", x.Status()),
		slog.Int64("received", x.Received()),
		slog.Int64("sent", x.Sent()),
		slog.Duration("duration", time.Since(x.Start())),
	)
	if f := x.Fault(); f != nil {
		attrs = append(attrs, slog.String("hop", f.Hop.String()), slog.String("code", f.Code.String()), slog.String("error", f.Error()))
	} else if code := x.Header().Get(answer.HeaderError); code != "" {
		// The agent's own answer; its log has the rest.
		attrs = append(attrs, slog.String("hop", wire.HopAgent.String()), slog.String("code", code))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "request", attrs...)
}
