package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Handler is an [http.Handler] for CONNECT; every other method is refused. It is
// safe for concurrent use.
//
// Tunnels end with their sessions, so that draining the links drains them: a server
// knows nothing of a connection that was taken over.
type Handler struct{ cfg Config }

// New returns a Handler.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	return &Handler{cfg: cfg}, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = answer.WithRequestID(r)
	// The sender's trace; what is observed of a tunnel is its session.
	_, r = telemetry.Observer{}.Begin(r, nil)
	defer h.recovered(r)
	if r.Method != http.MethodConnect {
		h.refuseMethod(w, r)
		return
	}
	s := &front.Session{Source: r.RemoteAddr, Start: time.Now()}
	stream, err := h.open(r, s)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	defer splice.CutIdle(stream, h.cfg.IdleTimeout, wire.HopHub)()
	h.join(w, r, s, stream)
}

// open takes a request through its steps to an open session.
func (h *Handler) open(r *http.Request, s *front.Session) (*mux.Session, error) {
	ctx := r.Context()
	if err := h.prepare(ctx, r, s); err != nil {
		h.cfg.Sessions.Refuse(ctx, s, err)
		return nil, err
	}
	return h.cfg.Sessions.Open(ctx, s) // which records what it refuses
}

func (h *Handler) prepare(ctx context.Context, r *http.Request, s *front.Session) error {
	target, err := route.Authority(r)
	if err != nil {
		return err
	}
	s.Target = target
	if err := checkContent(r); err != nil {
		return err
	}
	if err := h.cfg.Sessions.Admit(ctx, s); err != nil {
		return err
	}
	caller, err := h.authenticate(r)
	h.cfg.Observer.Metrics.Authenticated(string(caller.Method), telemetry.OutcomeOf(err))
	if err != nil {
		return err
	}
	s.Caller = caller
	return h.route(s)
}

// checkContent refuses a CONNECT that says it has content: it has no meaning (RFC
// 9110 section 9.3.6), and hops may disagree about where it ends.
func checkContent(r *http.Request) error {
	if r.ContentLength > 0 || len(r.TransferEncoding) > 0 {
		return &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget,
			Err: errors.New("a CONNECT request has no content: leave Content-Length and Transfer-Encoding out")}
	}
	return nil
}

// route finds the cluster. It comes after authentication: what is routed where is
// for callers to know.
func (h *Handler) route(s *front.Session) error {
	host, port := s.Target.Host, s.Target.PortNumber
	if h.cfg.Names != nil {
		if cluster, target, ok := h.cfg.Names(host, port); ok {
			s.Cluster, s.Target = cluster, target
			return nil
		}
	}
	denied := &fault.Error{Hop: wire.HopHub, Op: "route", Code: wire.CodePermissionDenied, Target: s.Target.String()}
	cluster, ok := h.cfg.Routes.Lookup(host)
	if !ok {
		denied.Err = errors.New("no route of connect.routes leads to this host")
		return denied
	}
	s.Cluster, denied.Cluster = cluster, cluster
	if !h.cfg.Ports.Contains(port) {
		denied.Err = fmt.Errorf("port %d is not one of connect.ports, which are %v", port, h.cfg.Ports)
		return denied
	}
	return nil
}

// refuse answers with err. The connection of an HTTP/1 client ends with it: what the
// client may have sent on for the target is no request.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	if f := fault.As(err); f != nil && f.Code == wire.CodeNotFound && f.Hop != wire.HopHub {
		// A name that the agent's DNS does not have is no path that was not found.
		unreachable := *f
		unreachable.Code = wire.CodeUnreachable
		err = &unreachable
	}
	status, writeErr := answer.WriteProxy(w, r, err, challenges...)
	h.cfg.Logger.DebugContext(r.Context(), "connect answered", "request_id", answer.RequestID(r.Context()), "status", status, "write_error", writeErr)
}

// refuseMethod answers what is no CONNECT: a plain request of a client that takes
// this for a proxy of plain HTTP, mostly.
func (h *Handler) refuseMethod(w http.ResponseWriter, r *http.Request) {
	err := &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget,
		Err: errors.New("method: only CONNECT host:port is served here, plain HTTP is not proxied")}
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	status, writeErr := answer.WriteMethod(w, r, err, http.MethodConnect)
	h.cfg.Logger.InfoContext(r.Context(), "connect refused", "request_id", answer.RequestID(r.Context()), "remote", r.RemoteAddr, "status", status,
		"error", err, "write_error", writeErr)
}

// recovered turns a panic into the end of the request, with its stack in the log.
func (h *Handler) recovered(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	//nolint:errorlint // The server compares by identity too.
	if v != http.ErrAbortHandler {
		h.cfg.Logger.ErrorContext(r.Context(), "panic while serving CONNECT", "request_id", answer.RequestID(r.Context()),
			"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// logEnd writes the line of a tunnel that was open. Its host and port are in the
// audit log as well; no credential is in either.
func (h *Handler) logEnd(r *http.Request, s *front.Session, result splice.Result) {
	attrs := append(make([]slog.Attr, 0, 10),
		slog.String("request_id", answer.RequestID(r.Context())),
		slog.String("cluster", s.Cluster),
		slog.String("user", userOf(s.Caller)),
		slog.String("target", s.Target.String()),
		slog.String("proto", r.Proto),
		slog.Int64("received", result.AToB),
		slog.Int64("sent", result.BToA),
		slog.Duration("duration", time.Since(s.Start)),
	)
	if result.Err != nil {
		attrs = append(attrs, slog.String("error", result.Err.Error()))
	}
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "connect ended", attrs...)
}

func userOf(c identity.Caller) string {
	if c.User == nil {
		return ""
	}
	return identity.Real(c.User).GetName()
}
