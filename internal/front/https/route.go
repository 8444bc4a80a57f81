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
	if v.to, err = route.Parse(path); err == nil && !v.to.IsOwn {
		v.seen.Route(v.to.Cluster, v.to.Target)
	}
	return err
}
