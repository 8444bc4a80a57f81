package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/route"
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
}

// serve answers one request of a session.
func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	v := &visit{start: time.Now(), method: r.Method}
	x, r := relay.Begin(w, r)
	r = answer.WithRequestID(r)
	defer u.log(r.Context(), v, x)
	x.Guard(r, wire.HopAgent, u.cfg.Logger, func() {
		if err := u.proxyTo(x, r, v); err != nil {
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
	path, err := route.RequestPath(r, wire.HopAgent)
	if err != nil {
		return err
	}
	v.path = path[:min(len(path), maxLoggedPath)]
	if err := route.CheckPath(path); err != nil {
		return &fault.Error{Hop: wire.HopAgent, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	// Again, although it was checked at OPEN: sessions outlive decisions.
	if err := u.Check(target); err != nil {
		return err
	}
	switch target.Kind {
	case wire.TargetKubernetesAPI:
		users := r.Header["Impersonate-User"]
		if len(users) != 1 || users[0] == "" {
			return &fault.Error{Hop: wire.HopAgent, Op: "check identity", Code: wire.CodePermissionDenied, Target: target.String(),
				Err: errors.New("the hub sent no user to impersonate, and the agent acts for nobody else")}
		}
		v.user = users[0]
		u.proxy.Serve(x, r, u.kubernetesLeg(r, path))
	case wire.TargetService:
		u.proxy.Serve(x, r, u.serviceLeg(r, target, path))
	default:
		return &fault.Error{Hop: wire.HopAgent, Op: "serve", Code: wire.CodeInvalidTarget, Target: target.String(),
			Err: errors.New("an address is reached with raw bytes, not with HTTP")}
	}
	return nil
}

func (u *Upstream) kubernetesLeg(r *http.Request, path string) relay.Leg {
	k := u.kubernetes
	return relay.Leg{
		Transport: k.pick(r), Scheme: k.scheme, Host: k.host, Path: k.prefix + path,
		Header: stripForKubernetes, Trailer: stripTrailer,
	}
}

func (u *Upstream) serviceLeg(r *http.Request, target wire.Target, path string) relay.Leg {
	if target.Scheme == "" {
		target.Scheme = "https"
	}
	return relay.Leg{
		Transport: u.services.pick(r), Scheme: target.Scheme, Host: poolKey(target), Authority: authority(target), Path: path,
		Header: stripForService, Trailer: stripTrailer,
	}
}

// stripForKubernetes removes the credentials and claims of identity that an API
// server would judge, except for the impersonation that the hub set. The agent's
// own credential is added after that.
func stripForKubernetes(h http.Header) {
	for name := range h {
		folded := fold(name)
		if folded == "authorization" || isClaim(folded) || strings.HasPrefix(folded, "impersonate-") && !strings.HasPrefix(name, "Impersonate-") {
			delete(h, name)
		}
	}
}

// stripForService removes what is only meant for an API server and for the hub.
// Authorization stays: the hub removed its own credential, so what is left is one
// that the caller addressed to the service.
func stripForService(h http.Header) {
	for name := range h {
		if folded := fold(name); isClaim(folded) || strings.HasPrefix(folded, "impersonate-") {
			delete(h, name)
		}
	}
}

// stripTrailer removes what never belongs in a trailer, for servers that merge
// trailers into the header.
func stripTrailer(h http.Header) {
	stripForService(h)
	stripForKubernetes(h)
}

func isClaim(folded string) bool {
	return folded == "proxy-authorization" || folded == "culvert-authorization" || strings.HasPrefix(folded, "x-remote-")
}

// fold makes the spellings alike that servers behind a gateway interface cannot
// tell apart.
func fold(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// log writes the line of a request for the cluster's owner.
func (u *Upstream) log(ctx context.Context, v *visit, x *relay.Exchange) {
	attrs := []slog.Attr{
		slog.String("request_id", answer.RequestID(ctx)),
		slog.String("target", v.target.String()),
		slog.String("user", v.user),
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
}
