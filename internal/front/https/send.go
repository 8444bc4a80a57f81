package https

import (
	"maps"
	"net/http"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/relay"
)

// send sends the request on and the answer back.
func (h *Handler) send(v *visit) error {
	if err := h.cfg.Limits.Body(v.r); err != nil {
		return err
	}
	key := poolKey(v.to.Cluster, v.to.Target)
	if h.cfg.Choose != nil {
		agent, done, err := h.cfg.Choose(v.r.Context(), v.to.Cluster, v.to.Target)
		if err != nil {
			return err
		}
		defer done()
		key = agentKey(agent, key)
	}
	editor := headerEditor{requestID: answer.RequestID(v.r.Context()), add: v.outgoing}
	h.proxy.Serve(v.x, v.r, relay.Leg{
		Transport: h.way,
		Cluster:   v.to.Cluster,
		Scheme:    "http",
		Host:      key,
		Path:      v.to.UpstreamPath,
		Header:    editor.edit,
		Trailer:   identity.StripTrailer,
		GotConn:   v.gotConn,
		Switched:  func(func()) { h.begin(v) },
	})
	return nil
}

// headerEditor makes the header that goes to the agent.
type headerEditor struct {
	requestID string
	add       http.Header
}

func (e headerEditor) edit(h http.Header) {
	identity.Strip(h)
	maps.Copy(h, e.add)
	h.Set(answer.HeaderRequestID, e.requestID)
}
