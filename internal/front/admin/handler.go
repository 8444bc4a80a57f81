package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// Config sets up a [Handler]. Both fields are required.
type Config struct {
	Hub Hub
	// Logger gets one line for each change and for each refusal.
	Logger *slog.Logger
}

// Handler is the front end. It is safe for concurrent use.
type Handler struct {
	cfg Config
	mux *http.ServeMux
}

// New returns a Handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Hub == nil || cfg.Logger == nil {
		return nil, errors.New("admin: Hub and Logger are required")
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux()}
	h.routes()
	return h, nil
}

func (h *Handler) routes() {
	hub := h.cfg.Hub
	h.handle("GET", "tokens", "list tokens", func(r *http.Request, _ string) (any, error) {
		items, err := hub.ListTokens(r.Context())
		return List[Token]{Items: items}, err
	})
	h.handle("POST", "tokens", "create token", func(r *http.Request, who string) (any, error) {
		var want TokenRequest
		if err := decode(r, &want); err != nil {
			return nil, err
		}
		return hub.CreateToken(r.Context(), who, want)
	})
	h.handle("DELETE", "tokens/{id}", "revoke token", func(r *http.Request, who string) (any, error) {
		return hub.RevokeToken(r.Context(), who, r.PathValue("id"))
	})
	h.handle("GET", "clusters", "list clusters", func(r *http.Request, _ string) (any, error) {
		items, err := hub.ListClusters(r.Context())
		return List[Cluster]{Items: items}, err
	})
	h.handle("GET", "clusters/{name}", "get cluster", func(r *http.Request, _ string) (any, error) {
		return hub.GetCluster(r.Context(), r.PathValue("name"))
	})
	h.handle("POST", "clusters/{name}/accept", "accept cluster", func(r *http.Request, who string) (any, error) {
		var how Acceptance
		if err := decode(r, &how); err != nil {
			return nil, err
		}
		return hub.AcceptCluster(r.Context(), who, r.PathValue("name"), how)
	})
	h.handle("POST", "clusters/{name}/direct", "set cluster", func(r *http.Request, who string) (any, error) {
		var direct Direct
		if err := decode(r, &direct); err != nil {
			return nil, err
		}
		return hub.SetDirect(r.Context(), who, r.PathValue("name"), direct)
	})
	h.handle("POST", "clusters/{name}/revoke", "revoke cluster", func(r *http.Request, who string) (any, error) {
		var why RevokeRequest
		if err := decode(r, &why); err != nil {
			return nil, err
		}
		return hub.RevokeCluster(r.Context(), who, r.PathValue("name"), why)
	})
	h.handle("POST", "clusters/{name}/restore", "restore cluster", func(r *http.Request, who string) (any, error) {
		if err := decode(r, &struct{}{}); err != nil {
			return nil, err
		}
		return hub.RestoreCluster(r.Context(), who, r.PathValue("name"))
	})
	h.handle("GET", "authorities", "list authorities", func(r *http.Request, _ string) (any, error) {
		items, err := hub.ListAuthorities(r.Context())
		return List[Authority]{Items: items}, err
	})
	h.handle("POST", "authorities/{role}/rotate", "rotate authority", func(r *http.Request, who string) (any, error) {
		if err := decode(r, &struct{}{}); err != nil {
			return nil, err
		}
		return hub.RotateAuthority(r.Context(), who, r.PathValue("role"))
	})
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, r, "", &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeNotFound,
			Err: fmt.Errorf("the hub has no %s here, want %stokens, clusters or authorities", quoteMethod(r.Method), Prefix)})
	})
}

// quoteMethod keeps what a client calls its method short.
func quoteMethod(method string) string {
	const most = 16
	return fmt.Sprintf("%.*q", most, method)
}

// handle serves one kind of request.
func (h *Handler) handle(method, path, op string, do func(r *http.Request, who string) (any, error)) {
	h.mux.HandleFunc(method+" "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		who, ok := r.Context().Value(callerKey{}).(string)
		if !ok || who == "" {
			h.refuse(w, r, op, &fault.Error{Hop: wire.HopHub, Op: op, Code: wire.CodeUnauthenticated, Err: errors.New("nobody is known to call")})
			return
		}
		result, err := do(r, who)
		if err != nil {
			h.refuse(w, r, op, err)
			return
		}
		if method != http.MethodGet {
			h.cfg.Logger.InfoContext(r.Context(), "administrator's change", "what", op, "who", who, "path", r.URL.Path,
				"request_id", answer.RequestID(r.Context()))
		}
		h.reply(w, r, op, result)
	})
}

type callerKey struct{}

// As returns r as a request of the administrator who, which must not be empty.
// Whether that one may administer the hub is decided before.
func As(r *http.Request, who string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, who))
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if answer.RequestID(r.Context()) == "" {
		r = answer.WithRequestID(r)
	}
	h.mux.ServeHTTP(w, r)
}

func decode(r *http.Request, into any) error {
	invalid := func(err error) error {
		return &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget, Err: err}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return invalid(errors.New("content type: want application/json"))
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return invalid(fmt.Errorf("body: %w", err))
	case len(data) > maxBody:
		return invalid(fmt.Errorf("body: larger than %d bytes", maxBody))
	case len(data) == 0:
		data = []byte("{}")
	}
	if err := unmarshalStrict(data, into); err != nil {
		return invalid(fmt.Errorf("body: %w", err))
	}
	return nil
}

func (h *Handler) reply(w http.ResponseWriter, r *http.Request, op string, result any) {
	body, err := json.Marshal(result)
	if err != nil {
		h.refuse(w, r, op, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set(answer.HeaderRequestID, answer.RequestID(r.Context()))
	if _, err := w.Write(append(body, '\n')); err != nil {
		h.cfg.Logger.DebugContext(r.Context(), "an administrator's answer could not be written", "what", op, "reason", err)
	}
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, op string, err error) {
	level := slog.LevelInfo
	if fault.As(err) == nil {
		level = slog.LevelError // the caller is not told the cause
	}
	who, known := r.Context().Value(callerKey{}).(string)
	if !known {
		who = "nobody"
	}
	h.cfg.Logger.Log(r.Context(), level, "administrator's request refused", "what", op, "who", who, "reason", err,
		"request_id", answer.RequestID(r.Context()))
	if _, err := answer.Write(w, r, err); err != nil {
		h.cfg.Logger.DebugContext(r.Context(), "an administrator's answer could not be written", "what", op, "reason", err)
	}
}
