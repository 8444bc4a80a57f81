package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	requestunion "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Chain authenticates requests. It is made by [New], is safe for concurrent use,
// and belongs to the caller, who closes it.
type Chain struct {
	tokens   authenticator.Token
	requests authenticator.Request
	// static is nil without a token file, review where no cluster is asked.
	static *tokenFile
	review *reviewer
	roots  Roots
	cancel context.CancelFunc
}

// New reads the files that cfg names and returns a chain whose reviews end when
// ctx does. It asks nobody yet, so that a hub starts while its cluster is down.
// log gets what an administrator must know, never a token; nil is
// [slog.Default].
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Chain, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	var cluster *rest.Config
	if cfg.TokenReview != nil {
		var err error
		if cluster, err = clusterConfig(cfg.TokenReview); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
	}
	return newChain(ctx, cfg, cluster, log)
}

func clusterConfig(cfg *TokenReviewConfig) (*rest.Config, error) {
	if cfg.InCluster {
		cluster, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("tokenReview.inCluster: %w", err)
		}
		return cluster, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: cfg.Kubeconfig}
	cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("tokenReview.kubeconfig: %s: %w", cfg.Kubeconfig, err)
	}
	return cluster, nil
}

// newChain is New after the cluster's configuration was loaded.
func newChain(ctx context.Context, cfg Config, cluster *rest.Config, log *slog.Logger) (*Chain, error) {
	if log == nil {
		log = slog.Default()
	}
	cfg = cfg.withDefaults()
	life, cancel := context.WithCancel(ctx)
	c := &Chain{cancel: cancel, roots: cfg.ClientCA}
	var backends []authenticator.Token
	if cfg.TokenFile != "" {
		static, err := newTokenFile(cfg.TokenFile, log)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.static = static
		backends = append(backends, static)
	}
	if cfg.TokenReview != nil {
		review, err := newReviewer(life, cluster, cfg.TokenReview.Timeout, log)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.review = review
		backends = append(backends, reviews(review, cfg.TokenReview))
	}
	// The first error ends the chain: the static file has none, and what comes
	// after a cluster that cannot judge must not be the one to refuse.
	c.tokens = tokenunion.NewFailOnError(backends...)
	tokens := authenticator.TokenFunc(c.authenticateToken)
	c.requests = requestunion.NewFailOnError(bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens))
	return c, nil
}

// reviews puts expiry, audiences and the cache before review.
func reviews(review *reviewer, cfg *TokenReviewConfig) authenticator.Token {
	cached := newBoundedCache(review, cfg.CacheTTL, cfg.FailureTTL, maxVerdicts)
	return authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		if expires, ok := expiry(token); ok && !time.Now().Before(expires) {
			return nil, false, unauthenticated(fmt.Errorf("the token expired at %s: get a new one", expires.UTC().Format(time.RFC3339)))
		}
		// A waiter of a shared review is bounded here, the review by itself.
		ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
		if len(cfg.Audiences) > 0 {
			ctx = authenticator.WithAudiences(ctx, cfg.Audiences)
		}
		response, ok, err := cached.AuthenticateToken(ctx, token)
		if errors.Is(err, context.DeadlineExceeded) && fault.As(err) == nil {
			err = review.unavailable(fmt.Errorf("no answer within %v", cfg.Timeout))
		}
		return response, ok, err
	})
}

// Authenticate returns who sent r, by the token in its Authorization header or
// in its WebSocket subprotocols or, where it has neither and Config.ClientCA is
// set, by the client certificate of its connection. On success a token is removed from
// r.Header. The user is shared between requests and must not be changed. The
// error is a *fault.Error; see the package's Errors section. No call takes
// longer than the timeout of the token review.
func (c *Chain) Authenticate(r *http.Request) (user.Info, error) {
	if who, err := c.byCertificate(r); who != nil || err != nil {
		return who, err
	}
	if err := checkCredential(r); err != nil {
		return nil, unauthenticated(err)
	}
	response, ok, err := c.requests.AuthenticateRequest(r)
	switch {
	case err != nil && fault.As(err) != nil:
		return nil, fault.As(err)
	case err != nil:
		// What is left is how the request authenticators put a bad subprotocol.
		return nil, unauthenticated(err)
	case !ok || response == nil || response.User == nil:
		return nil, unauthenticated(errRefused)
	}
	return response.User, nil
}

// byCertificate returns whom the connection's certificate names, or nil where a
// token decides: there is no certificate, or the request has a token, which is
// what a caller chose for this request. It is judged for each request: a
// connection may outlive its certificate.
func (c *Chain) byCertificate(r *http.Request) (user.Info, error) {
	if c.roots == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || hasToken(r) {
		return nil, nil
	}
	cert, err := verifyClient(c.roots, r.TLS)
	if err != nil {
		return nil, unauthenticated(err)
	}
	return certificateUser(cert)
}

var errRefused = errors.New("the token is wrong, expired or for another audience")

// authenticateToken asks the backends. All its refusals and failures are faults,
// so that the authenticators above it add only what is wrong with a request.
func (c *Chain) authenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if reason := malformedToken(token); reason != "" {
		return nil, false, unauthenticated(errors.New(reason))
	}
	response, ok, err := c.tokens.AuthenticateToken(ctx, token)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, false, ended(ctx)
	case err != nil && fault.As(err) != nil:
		return nil, false, fault.As(err)
	case err != nil:
		return nil, false, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeInternal, Err: err}
	case !ok:
		return nil, false, unauthenticated(errRefused)
	}
	if reason := refusedUser(response.User); reason != "" {
		return nil, false, unauthenticated(errors.New(reason))
	}
	return response, true, nil
}

// ended is for a request whose own context is over.
func ended(ctx context.Context) *fault.Error {
	code := wire.CodeCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = wire.CodeDeadlineExceeded
	}
	return &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: code, Err: context.Cause(ctx)}
}

func unauthenticated(err error) *fault.Error {
	return &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: err}
}

// Reload reads the token file now. An error says why its new content is not in
// force; what was loaded before then stays. Without a call the file is looked at
// once a second while tokens come in.
func (c *Chain) Reload() error {
	if c.static == nil {
		return nil
	}
	return c.static.reload()
}

// Health returns the state of the token file, if there is one.
func (c *Chain) Health() []telemetry.Health {
	if c.static == nil {
		return nil
	}
	return []telemetry.Health{c.static.health()}
}

// Close ends the reviews under way, waits for them, and closes idle connections.
// It may be called more than once. A later Authenticate still knows static
// tokens and those in the cache; other tokens get unavailable.
func (c *Chain) Close() {
	c.cancel()
	if c.review != nil {
		c.review.close()
	}
}
