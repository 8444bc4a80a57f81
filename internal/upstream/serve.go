package upstream

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxLoggedPath bounds what of a path is logged, in bytes.
const maxLoggedPath = 1024

// visit is what is known of a request when its line is logged.
type visit struct {
	start  time.Time
	method string
	path   string
	user   string
	target wire.Target
	rule   string
	seen   *telemetry.Request
}

// serve answers one request of a session.
func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	v := &visit{start: time.Now(), method: r.Method}
	x, r := relay.Begin(w, r)
	v.seen, r = u.cfg.Observer.Begin(answer.WithRequestID(r), x)
	defer u.end(r.Context(), v, x)
	x.Guard(r, wire.HopAgent, u.cfg.Logger, func() {
		if err := u.proxyTo(x, r, v); err != nil {
			u.note(err, false)
			x.Answer(r, err)
		}
	})
}

func (u *Upstream) proxyTo(x *relay.Exchange, r *http.Request, v *visit) error {
	target, ok := r.Context().Value(targetKey{}).(wire.Target)
	if !ok {
		return &fault.Error{Hop: wire.HopAgent, Op: "serve", Code: wire.CodeInternal, Err: errors.New("session without a target")}
	}
	v.target = target
	v.seen.Route("", target)
	path, err := route.RequestPath(r, wire.HopAgent)
	if err != nil {
		return err
	}
	v.path = path[:min(len(path), maxLoggedPath)]
	if err := route.CheckPath(path); err != nil {
		return &fault.Error{Hop: wire.HopAgent, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	// Again, although it was checked at OPEN: sessions outlive decisions.
	if err := u.check(target); err != nil {
		return err
	}
	switch target.Kind {
	case wire.TargetKubernetesAPI:
		return u.serveKubernetes(x, r, v, path)
	case wire.TargetService:
		return u.serveService(x, r, v, path)
	default:
		return &fault.Error{Hop: wire.HopAgent, Op: "serve", Code: wire.CodeInvalidTarget, Target: target.String(),
			Err: errors.New("an address is reached with raw bytes, not with HTTP")}
	}
}

func (u *Upstream) serveKubernetes(x *relay.Exchange, r *http.Request, v *visit, path string) error {
	who, err := u.impersonation.impersonated(r.Header)
	if err != nil {
		return err
	}
	k := u.kubernetes
	way, editor := &k.transports, kubernetesEditor{set: checkedHeaders(r.Header)}
	if who == nil {
		token := r.Header["Authorization"]
		if !u.cfg.PassThrough || len(token) != 1 || !isBearer(token[0]) {
			return refuseIdentity(errors.New("the hub sent no user to impersonate, and the agent acts for nobody else"))
		}
		way, editor = &k.passThrough, kubernetesEditor{set: http.Header{"Authorization": token}}
	}
	if err := u.decided(v, who, func(who user.Info) (policy.Decision, error) { return u.decideKubernetes(r, path, who) }); err != nil {
		return err
	}
	u.note(nil, true)
	u.proxy.Serve(x, r, relay.Leg{
		Transport: way.pick(r), Scheme: k.scheme, Host: k.host, Authority: k.host, Path: k.prefix + path,
		Header: editor.edit, Trailer: stripTrailer,
	})
	return nil
}

func (u *Upstream) serveService(x *relay.Exchange, r *http.Request, v *visit, path string) error {
	target := v.target
	if target.Scheme == "" {
		target.Scheme = "https"
	}
	// The service does not see it: it is for the policy alone.
	who, err := u.impersonation.impersonated(r.Header)
	if err != nil {
		return err
	}
	if u.cfg.ReadOnly {
		if err := readsService(r); err != nil {
			v.rule = ruleReadOnly
			return refuse(target, err)
		}
	}
	if !isNumber(target.Port) {
		// Nothing is asked of DNS for what no number could make allowed.
		early := func(who user.Info) (policy.Decision, error) { return u.decideService(r.Context(), v.target, 0, who) }
		if err := u.decided(v, who, early); err != nil {
			return err
		}
	}
	number, err := u.services.port(r.Context(), target)
	if err != nil {
		return withTarget(explainDial(err), target)
	}
	known := func(who user.Info) (policy.Decision, error) {
		return u.decideService(r.Context(), v.target, number, who)
	}
	if err := u.decided(v, who, known); err != nil {
		return err
	}
	u.note(nil, true)
	u.proxy.Serve(x, r, relay.Leg{
		Transport: u.services.pick(r), Scheme: target.Scheme, Host: poolKey(target, number), Authority: authority(target), Path: path,
		Header: stripForService, Trailer: stripTrailer,
	})
	return nil
}

// decided notes who asks and which rule decided.
func (u *Upstream) decided(v *visit, who *user.DefaultInfo, decide func(user.Info) (policy.Decision, error)) error {
	// A nil pointer in an interface would be somebody.
	var info user.Info
	if who != nil {
		v.user, info = who.Name, who
		v.seen.User(who.Name)
	}
	decision, err := decide(info)
	v.rule = decision.Rule
	return err
}

// isBearer tells a token from other schemes (RFC 6750 section 2.1).
func isBearer(authorization string) bool {
	scheme, token, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "Bearer") && strings.TrimSpace(token) != ""
}

// kubernetesEditor makes the header that goes to an API server.
type kubernetesEditor struct {
	// set are the headers that were checked. They are put back after hop-by-hop
	// headers are gone: a hub that lists them in Connection would else have the
	// agent ask in its own name.
	set http.Header
}

func (e kubernetesEditor) edit(h http.Header) {
	stripForKubernetes(h)
	maps.Copy(h, e.set)
}

// stripForKubernetes removes the credentials and claims of identity that an API
// server would judge. What was checked of them is added after that, and the
// agent's own credential.
func stripForKubernetes(h http.Header) {
	for name := range h {
		if folded := fold(name); folded == "authorization" || isClaim(folded) || isImpersonate(folded) {
			delete(h, name)
		}
	}
}

// stripForService removes what is only meant for an API server and for the hub.
// Authorization stays: the hub removed its own credential, so what is left is one
// that the caller addressed to the service.
func stripForService(h http.Header) {
	for name := range h {
		if folded := fold(name); isClaim(folded) || isImpersonate(folded) {
			delete(h, name)
		}
	}
}

// stripTrailer removes what never belongs in a trailer, for servers that merge
// trailers into the header.
func stripTrailer(h http.Header) { stripForKubernetes(h) }

func isClaim(folded string) bool {
	return folded == "proxy-authorization" || folded == "culvert-authorization" || strings.HasPrefix(folded, "x-remote-")
}

func isImpersonate(folded string) bool { return strings.HasPrefix(folded, "impersonate-") }

// fold makes the spellings alike that servers behind a gateway interface cannot
// tell apart.
func fold(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// end writes the line of a request for the cluster's owner.
func (u *Upstream) end(ctx context.Context, v *visit, x *relay.Exchange) {
	attrs := []slog.Attr{
		slog.String("request_id", answer.RequestID(ctx)),
		slog.String("target", v.target.String()),
		slog.String("user", v.user),
		slog.String("rule", v.rule),
		slog.String("method", v.method),
		slog.String("path", v.path),
		slog.Int("status", x.Status()),
		slog.Int64("received", x.Received()),
		slog.Int64("sent", x.Sent()),
		slog.Duration("duration", time.Since(v.start)),
	}
	if f := x.Fault(); f != nil {
		attrs = append(attrs, slog.String("hop", f.Hop.String()), slog.String("code", f.Code.String()), slog.String("error", f.Error()))
	}
	u.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
	v.seen.End()
}
