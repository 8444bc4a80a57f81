package https

import (
	"net/http"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// HeaderCredential carries the hub's credential when the service wants
// Authorization for itself.
const HeaderCredential = "Culvert-Authorization"

// Handler is the hub's [http.Handler]. It is safe for concurrent use.
type Handler struct {
	cfg       Config
	transport *http.Transport
	// way is transport, observed.
	way   http.RoundTripper
	proxy *relay.Proxy
}

// New returns a Handler, which the caller closes after its servers.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Labels == nil {
		cfg.Labels = noLabels
	}
	h := &Handler{cfg: cfg}
	h.transport = newTransport(cfg.Dial)
	h.way = cfg.Observer.Transport(h.transport)
	h.proxy = relay.New(relay.Config{Explain: explain, Far: wire.HopAgent, Logger: cfg.Logger})
	return h, nil
}

func noLabels(string) (map[string]string, error) { return nil, nil }

// Close resets upgraded streams and closes idle sessions. Sessions in use by
// requests end with those, so shut the servers down first.
func (h *Handler) Close() {
	h.proxy.Close()
	h.transport.CloseIdleConnections()
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{}
	v.x, r = relay.Begin(w, r)
	v.seen, v.r = h.cfg.Observer.Begin(answer.WithRequestID(r), v.x)
	defer h.end(v)
	v.x.Guard(v.r, wire.HopHub, h.cfg.Logger, func() {
		if err := h.serve(v); err != nil {
			v.x.Answer(v.r, err)
		}
	})
}

// serve takes a request through its steps. The first that fails is the answer.
func (h *Handler) serve(v *visit) error {
	if err := h.route(v); err != nil {
		return err
	}
	if v.to.IsOwn {
		return h.serveOwn(v)
	}
	steps := [...]func(*Handler, *visit) error{
		(*Handler).admit, (*Handler).authenticate, (*Handler).limit, (*Handler).authorize, (*Handler).send,
	}
	for _, step := range steps {
		if err := step(h, v); err != nil {
			return err
		}
	}
	return nil
}
