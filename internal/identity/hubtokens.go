package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"

	"github.com/culvertdev/culvert/internal/fault"
)

const (
	// hubKeysTTL is how long the names of a cluster's signing keys are used. A
	// cluster that gets a new one restarts its API server for it.
	hubKeysTTL = 10 * time.Second
	// keysPath is where an API server publishes the keys of its service accounts
	// (https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery).
	keysPath = "openid/v1/jwks"
)

// hubTokens tells whether a token that the reviewing cluster refused is that
// cluster's all the same: for another audience, or over. Such a token is never
// handed on. It is safe for concurrent use.
type hubTokens struct {
	review *reviewer
	// anyAudience reviews without audiences; nil where the first review had none.
	anyAudience authenticator.Token

	turn    chan struct{} // holds the right to read and change what follows
	names   map[string]bool
	until   time.Time
	failing bool
}

func newHubTokens(review *reviewer, cfg *TokenReviewConfig) *hubTokens {
	h := &hubTokens{review: review, turn: make(chan struct{}, 1)}
	if len(cfg.Audiences) > 0 {
		plain := *cfg
		plain.Audiences = nil
		h.anyAudience = reviews(review, &plain)
	}
	return h
}

var errOfHub = errors.New("the token is one of the hub's cluster, and is over or for another audience: it is not handed on to a managed cluster")

// foreign returns nil when the token is certainly not of the reviewing cluster,
// unauthenticated when it is or may be, and unavailable when nobody can tell.
func (h *hubTokens) foreign(ctx context.Context, token string) error {
	if key, signed := keyName(token); signed {
		if key == "" {
			return unauthenticated(errors.New("the token does not name its key, so that the hub cannot tell whether it is one of its own: it is not handed on"))
		}
		names, err := h.keys(ctx)
		if err != nil {
			return err
		}
		if names[key] {
			return unauthenticated(errOfHub)
		}
	}
	if h.anyAudience == nil {
		return nil // the review has judged it
	}
	_, ok, err := h.anyAudience.AuthenticateToken(ctx, token)
	switch {
	case err != nil:
		return err
	case ok:
		return unauthenticated(errOfHub)
	default:
		return nil
	}
}

// keys returns the names of the keys with which the cluster signs, fetched by one
// caller at a time.
func (h *hubTokens) keys(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, h.review.timeout)
	defer cancel()
	defer context.AfterFunc(h.review.life, cancel)()
	select {
	case h.turn <- struct{}{}:
		defer h.endTurn()
	case <-ctx.Done():
		return nil, h.unavailable(fmt.Errorf("no answer within %v", h.review.timeout))
	}
	if h.names != nil && time.Now().Before(h.until) {
		return h.names, nil
	}
	names, err := h.fetch(ctx)
	if err != nil {
		if !h.failing {
			h.review.log.Warn("cannot get the signing keys of the cluster that reviews tokens, callers whose token a managed cluster would judge get 503",
				"backend", h.review.backend, "error", err)
		}
		h.failing = true
		return nil, h.unavailable(unwrapURL(err))
	}
	h.names, h.until, h.failing = names, time.Now().Add(hubKeysTTL), false
	return names, nil
}

func (h *hubTokens) endTurn() { <-h.turn }

func (h *hubTokens) unavailable(err error) *fault.Error {
	return h.review.unavailable(fmt.Errorf("the keys of its service accounts, by which the hub knows its own tokens: %w", err))
}

func (h *hubTokens) fetch(ctx context.Context) (map[string]bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.review.base.JoinPath(keysPath).String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := h.review.client.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	switch {
	case response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("answered with status %d: bind the hub's account to the ClusterRole system:service-account-issuer-discovery", response.StatusCode)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("answered with status %d", response.StatusCode)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return keyNames(body)
}

// keyNames returns the names of the keys in a JSON Web Key Set (RFC 7517).
func keyNames(set []byte) (map[string]bool, error) {
	var parsed struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(set, &parsed); err != nil {
		return nil, errors.New("the answer is no JSON Web Key Set")
	}
	names := map[string]bool{}
	for _, key := range parsed.Keys {
		if key.ID == "" {
			return nil, errors.New("the answer has a key without a name")
		}
		names[key.ID] = true
	}
	if len(names) == 0 {
		return nil, errors.New("the answer has no key")
	}
	return names, nil
}

// keyName returns the name of the key that a token says it is signed with, and
// whether it is a signed token (RFC 7515) at all. Nothing is verified.
func keyName(token string) (name string, signed bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return "", false
	}
	var header struct {
		ID string `json:"kid"`
	}
	if err := json.Unmarshal(raw, &header); err != nil {
		// A header that cannot be read counts as one that names no key.
		return "", json.Valid(raw)
	}
	return header.ID, true
}
