package https

import (
	"net/http"
	"strings"

	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
)

// admit takes a request in before anybody knows whose it is.
func (h *Handler) admit(v *visit) error {
	if err := h.take(v, limit.Remote, limit.Network(v.r.RemoteAddr)); err != nil {
		return err
	}
	return h.cfg.Audit.Admit(v.r.Context())
}

// limit holds the caller and the cluster to their bounds. A caller who acts as
// somebody else is held to their own.
func (h *Handler) limit(v *visit) error {
	if err := h.take(v, limit.User, identity.Real(v.caller.User).GetName()); err != nil {
		return err
	}
	if v.to.Cluster == "" {
		return nil
	}
	return h.take(v, limit.Cluster, v.to.Cluster)
}

func (h *Handler) take(v *visit, scope limit.Scope, key string) error {
	if h.cfg.Limits == nil {
		return nil
	}
	err := h.cfg.Limits.Admit(&v.hold, scope, key, kindOf(v.r))
	if err != nil {
		h.cfg.Observer.Metrics.Limited(scope.String())
	}
	return err
}

// kindOf tells what stays open by its nature from what is soon over. What only
// looks so counts as a session, and has the bound of those.
func kindOf(r *http.Request) limit.Kind {
	if r.Header.Get("Upgrade") != "" || strings.Contains(r.URL.Path, "/watch/") {
		return limit.Session
	}
	if r.URL.RawQuery == "" {
		return limit.Request
	}
	// As API servers read it: names may be escaped, and need no value.
	if query := r.URL.Query(); query.Has("watch") || query.Has("follow") {
		return limit.Session
	}
	return limit.Request
}
