package https

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// HeaderCredential carries the hub's credential when the service wants
// Authorization for itself.
const HeaderCredential = "Culvert-Authorization"

// Config sets up a [Handler]. The functions must be safe for concurrent use.
type Config struct {
	// Dial opens a session to target in cluster. It is required, and must end
	// by itself in bounded time: its context has the values of the request that
	// caused it (see [answer.RequestID]), but not its end, since another request
	// may use the session. It fails with a [*fault.Error]. The connection should
	// have CloseWrite; the handler owns it.
	Dial func(ctx context.Context, cluster string, target wire.Target) (net.Conn, error)
	// Authenticate says who sent a request: [identity.Chain.Authenticate]. It is
	// required.
	Authenticate func(*http.Request) (user.Info, error)
	// Map says whom a user acts as: [identity.Mapper.Map]. It is required.
	Map func(user.Info) (identity.Impersonation, error)
	// Logger gets one line a request at info. It is required.
	Logger *slog.Logger
	// CA returns what /-/ca.crt answers, PEM: the CAs of the hub's certificate as
	// they are now. Without it, and where it returns nothing, the path is not found.
	CA func() []byte
	// Ready says whether the hub can serve, for /-/readyz. Its error is shown to
	// anybody who asks verbosely. Without it the hub is always ready.
	Ready func() error
	// Health returns the state of certificates and files, which /-/readyz?verbose
	// shows to anybody. What it warns of makes the hub not unready. May be nil.
	Health func() []telemetry.Health
	// Admin serves the paths under /-/v1/ to callers that were authenticated, and
	// decides which of them may. Without it those paths are not found.
	Admin func(w http.ResponseWriter, r *http.Request, caller user.Info) error
}

// Validate names every required field that is missing.
func (c *Config) Validate() error {
	var problems []error
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"Dial", c.Dial == nil}, {"Authenticate", c.Authenticate == nil}, {"Map", c.Map == nil}, {"Logger", c.Logger == nil},
	} {
		if field.missing {
			problems = append(problems, errors.New("https: "+field.name+" is required"))
		}
	}
	return errors.Join(problems...)
}

// Handler is the hub's [http.Handler]. It is safe for concurrent use.
type Handler struct {
	cfg       Config
	transport *http.Transport
	proxy     *relay.Proxy
}

// New returns a Handler, which the caller closes after its servers.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Handler{cfg: cfg}
	h.transport = newTransport(cfg.Dial)
	h.proxy = relay.New(relay.Config{Explain: explain, Far: wire.HopAgent, Logger: cfg.Logger})
	return h, nil
}

// Close resets upgraded streams and closes idle sessions. Sessions in use by
// requests end with those, so shut the servers down first.
func (h *Handler) Close() {
	h.proxy.Close()
	h.transport.CloseIdleConnections()
}

// maxLoggedPath bounds what of a path is logged, in bytes.
const maxLoggedPath = 1024

// visit is what is known of a request when its line is logged.
type visit struct {
	start   time.Time
	method  string
	path    string
	cluster string
	user    string
	quiet   bool
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{start: time.Now(), method: r.Method}
	x, r := relay.Begin(w, r)
	r = answer.WithRequestID(r)
	defer h.log(r.Context(), v, x)
	x.Guard(r, wire.HopHub, h.cfg.Logger, func() {
		if err := h.serve(x, r, v); err != nil {
			x.Answer(r, err)
		}
	})
}

func (h *Handler) serve(x *relay.Exchange, r *http.Request, v *visit) error {
	path, err := route.RequestPath(r, wire.HopHub)
	if err != nil {
		return err
	}
	v.path = path[:min(len(path), maxLoggedPath)]
	to, err := route.Parse(path)
	if err != nil {
		return err
	}
	if to.IsOwn {
		if h.cfg.Admin != nil && strings.HasPrefix(to.Own, adminPaths) {
			return h.serveAdmin(x, r, v)
		}
		v.quiet = true
		return h.serveOwn(x, r, to.Own)
	}
	v.cluster = to.Cluster

	forService := r.Header["Authorization"]
	if credential := r.Header[HeaderCredential]; len(credential) > 0 {
		r.Header["Authorization"] = credential
	} else {
		forService = nil
	}
	caller, err := h.cfg.Authenticate(r)
	if err != nil {
		return err
	}
	v.user = caller.GetName()
	impersonation, err := h.cfg.Map(caller)
	if err != nil {
		return err
	}
	mapped := http.Header{}
	if err := impersonation.Apply(mapped); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "map identity", Code: wire.CodePermissionDenied, Err: err}
	}

	editor := headerEditor{requestID: answer.RequestID(r.Context())}
	if to.Target.Kind == wire.TargetKubernetesAPI {
		editor.add = mapped
	} else if forService != nil {
		editor.add = http.Header{"Authorization": forService}
	}
	h.proxy.Serve(x, r, relay.Leg{
		Transport: h.transport,
		Cluster:   to.Cluster,
		Scheme:    "http",
		Host:      poolKey(to.Cluster, to.Target),
		Path:      to.UpstreamPath,
		Header:    editor.edit,
		Trailer:   identity.StripTrailer,
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

// log writes the line of a request. The query is left out: it may hold tokens.
func (h *Handler) log(ctx context.Context, v *visit, x *relay.Exchange) {
	level := slog.LevelInfo
	if v.quiet && x.Fault() == nil {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("request_id", answer.RequestID(ctx)),
		slog.String("cluster", v.cluster),
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
	} else if code := x.Header().Get(answer.HeaderError); code != "" {
		// The agent's own answer; its log has the rest.
		attrs = append(attrs, slog.String("hop", wire.HopAgent.String()), slog.String("code", code))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "request", attrs...)
}
