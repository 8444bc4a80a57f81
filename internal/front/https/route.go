package https

import (
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// route reads the path: what is decided later is decided about what it says.
func (h *Handler) route(v *visit) error {
	path, err := route.RequestPath(v.r, wire.HopHub)
	if err != nil {
		return err
	}
	v.path = path[:min(len(path), maxLoggedPath)]
	parse := route.Parse
	if h.cfg.HostOf != nil {
		host, ok, err := h.cfg.HostOf(v.r)
		if err != nil {
			return err
		}
		if ok {
			parse = host.Parse
		}
	}
	if v.to, err = parse(path); err == nil && !v.to.IsOwn {
		v.seen.Route(v.to.Cluster, v.to.Target)
	}
	return err
}
