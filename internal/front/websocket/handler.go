package websocket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// subprotocol is what a client may offer; none will do as well.
const subprotocol = "binary"

// messageSize bounds the messages to a client, in bytes, and is the buffer that one
// of them is written with.
const messageSize = 16 << 10

// Handler is an [http.Handler] for paths of [route.ParseTCP]. It is safe for
// concurrent use. Its sessions end with the links.
type Handler struct {
	cfg      Config
	upgrader websocket.Upgrader
}

// New returns a Handler.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	cfg.Ping = cmp.Or(cfg.Ping, DefaultPing)
	return &Handler{cfg: cfg, upgrader: websocket.Upgrader{
		WriteBufferSize: messageSize,
		WriteBufferPool: new(sync.Pool),
		Subprotocols:    []string{subprotocol},
		// A page that has a token may be of any origin; authenticate has checked those
		// that come with a certificate.
		CheckOrigin: func(*http.Request) bool { return true },
	}}, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = answer.WithRequestID(r)
	// The sender's trace; what is observed is the session.
	_, r = telemetry.Observer{}.Begin(r, nil)
	defer h.recovered(r)
	s := &front.Session{Source: r.RemoteAddr, Start: time.Now()}
	stream, err := h.open(r, s)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		// checkUpgrade leaves a connection that cannot be taken over, or is gone.
		stream.Reset(wire.CodeCanceled, wire.HopClient, "the client's connection cannot be upgraded")
		h.cfg.Logger.InfoContext(r.Context(), "websocket not upgraded", "request_id", answer.RequestID(r.Context()), "error", err)
		return
	}
	h.join(r, s, conn, stream)
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
	path, err := route.RequestPath(r, wire.HopHub)
	if err != nil {
		return err
	}
	if s.Cluster, s.Target, err = route.ParseTCP(path); err != nil {
		return err
	}
	if err := checkUpgrade(r); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "upgrade", Code: wire.CodeInvalidTarget, Cluster: s.Cluster, Err: err}
	}
	if err := h.cfg.Sessions.Admit(ctx, s); err != nil {
		return err
	}
	if err := h.authenticate(r, s); err != nil {
		return err
	}
	// What the authenticator left of the subprotocols is the client's own.
	if err := checkSubprotocol(r); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "upgrade", Code: wire.CodeInvalidTarget, Cluster: s.Cluster, Err: err}
	}
	if port := s.Target.PortNumber; !h.cfg.Ports.Contains(port) {
		return &fault.Error{Hop: wire.HopHub, Op: "route", Code: wire.CodePermissionDenied, Cluster: s.Cluster, Target: s.Target.String(),
			Err: fmt.Errorf("port %d is not one of connect.ports, which are %v", port, h.cfg.Ports)}
	}
	return nil
}

// checkUpgrade returns why r cannot become a WebSocket, so that no session is
// opened for it.
func checkUpgrade(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet || !websocket.IsWebSocketUpgrade(r):
		return errors.New("this path is for WebSocket: send GET with Upgrade: websocket over HTTP/1.1")
	case r.ProtoMajor != 1:
		return errors.New("WebSocket is served over HTTP/1.1 alone: do not offer h2")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return errors.New("the WebSocket version is not 13")
	case r.ContentLength > 0 || len(r.TransferEncoding) > 0:
		return errors.New("the upgrade has content, which has no meaning")
	}
	return nil
}

func checkSubprotocol(r *http.Request) error {
	offered := websocket.Subprotocols(r)
	switch {
	case len(offered) == 0 || slices.Contains(offered, subprotocol):
		return nil
	case slices.Contains(offered, "base64"):
		return errors.New(`the subprotocol "base64" of old clients is not served: offer "binary" or none`)
	default:
		return errors.New(`none of the subprotocols is served: offer "binary" or none`)
	}
}

func (h *Handler) authenticate(r *http.Request, s *front.Session) error {
	caller, err := h.cfg.Identify(r, "")
	h.cfg.Observer.Metrics.Authenticated(string(caller.Method), telemetry.OutcomeOf(err))
	if err != nil {
		return err
	}
	s.Caller = caller
	if caller.Method == identity.MethodCertificate {
		return identity.CheckOrigin(r)
	}
	return nil
}

// refuse answers with err. The connection of the client ends with it: what it may
// have sent on is no request.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Connection", "close")
	}
	if f := fault.As(err); f != nil && f.Code == wire.CodeNotFound && f.Hop != wire.HopHub {
		// A name that the agent's DNS does not have is no path that was not found.
		unreachable := *f
		unreachable.Code = wire.CodeUnreachable
		err = &unreachable
	}
	status, writeErr := answer.Write(w, r, err)
	h.cfg.Logger.DebugContext(r.Context(), "websocket answered", "request_id", answer.RequestID(r.Context()), "status", status, "write_error", writeErr)
}

// recovered turns a panic into the end of the request, with its stack in the log.
func (h *Handler) recovered(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	//nolint:errorlint // The server compares by identity too.
	if v != http.ErrAbortHandler {
		h.cfg.Logger.ErrorContext(r.Context(), "panic while serving a WebSocket", "request_id", answer.RequestID(r.Context()),
			"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}
