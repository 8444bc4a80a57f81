package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// Chain authenticates requests. It is made by [New], is safe for concurrent use,
// and belongs to the caller, who closes it.
type Chain struct {
	// backends are asked in their order.
	backends []tokenJudge
	// static is nil without a token file, oidc without a configuration of issuers,
	// review where no cluster is asked.
	static *tokenFile
	oidc   *issuerFile
	review *reviewer
	pass   passThrough
	roots  Roots
	cancel context.CancelFunc
}

// New reads the files that cfg names and returns a chain whose reviews, and what it
// has of OIDC issuers, end when ctx does. It waits for nobody, so that a hub starts
// while its cluster or an issuer is down.
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
	c := &Chain{cancel: cancel, roots: cfg.ClientCA, pass: passThrough{clusters: cfg.PassThrough}}
	if cfg.TokenFile != "" {
		static, err := newTokenFile(cfg.TokenFile, log)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.static = static
		c.backends = append(c.backends, tokenJudge{MethodStaticToken, static})
	}
	if cfg.AuthenticationConfig != "" {
		issuers, err := newIssuerFile(life, cfg.AuthenticationConfig, nil, log)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.oidc = issuers
		c.backends = append(c.backends, tokenJudge{MethodOIDC, issuers})
	}
	if cfg.TokenReview != nil {
		review, err := newReviewer(life, cluster, cfg.TokenReview.Timeout, log)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("identity: %w", err)
		}
		c.review = review
		c.backends = append(c.backends, tokenJudge{MethodTokenReview, reviews(review, cfg.TokenReview)})
		if len(cfg.PassThrough) > 0 {
			c.pass.hub = newHubTokens(review, cfg.TokenReview)
		}
	}
	return c, nil
}

// reviews puts expiry, audiences and the cache before review.
func reviews(review *reviewer, cfg *TokenReviewConfig) authenticator.Token {
	cached := newBoundedCache(review, cfg.CacheTTL, cfg.FailureTTL, maxVerdicts)
	return authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		if err := notExpired(token); err != nil {
			return nil, false, err
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

var errRefused = errors.New("the token is wrong, expired or for another audience")

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

// Reload reads the token file and the configuration of OIDC issuers now. An error
// says why their new content is not in force; what was loaded before then stays.
// Without a call the files are looked at once a second while tokens come in.
func (c *Chain) Reload() error {
	var problems []error
	for _, f := range c.followed() {
		problems = append(problems, f.reload())
	}
	return errors.Join(problems...)
}

// look lets changed files count at once, and returns why they do not.
func (c *Chain) look() error {
	var problems []error
	for _, f := range c.followed() {
		problems = append(problems, f.look())
	}
	return errors.Join(problems...)
}

func (c *Chain) followed() []*follower {
	var files []*follower
	if c.static != nil {
		files = append(files, &c.static.follower)
	}
	if c.oidc != nil {
		files = append(files, &c.oidc.follower)
	}
	return files
}

// Health returns the state of the token file, of the configuration of OIDC issuers
// and of each issuer, as far as there are any.
func (c *Chain) Health() []telemetry.Health {
	var all []telemetry.Health
	for _, f := range c.followed() {
		all = append(all, f.health())
	}
	if c.oidc != nil {
		all = append(all, c.oidc.issuerHealth()...)
	}
	return all
}

// Close ends the reviews under way, waits for them, ends what is fetched from OIDC
// issuers and closes idle connections. It may be called more than once. A later
// Identify still knows static tokens and those in the cache of reviews; other
// tokens get unavailable.
func (c *Chain) Close() {
	c.cancel()
	if c.oidc != nil {
		c.oidc.close()
	}
	if c.review != nil {
		c.review.close()
	}
}
