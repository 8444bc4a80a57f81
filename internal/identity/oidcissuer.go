package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// settleInterval is how often a new issuer's first discovery is looked at, which
	// the authenticator does not tell of by itself.
	settleInterval = 20 * time.Millisecond
	// maxIssuerVerdicts bounds what the cache of one issuer remembers, of which
	// there are up to 64.
	maxIssuerVerdicts = 4 << 10
)

// issuer is one OIDC issuer: the authenticator of k8s.io/apiserver behind a cache,
// with its refusals told from its failures. Discovery is tried in the background
// every 10 s until it succeeds. It is safe for concurrent use.
type issuer struct {
	config    apiserver.JWTAuthenticator
	tokens    oidc.AuthenticatorTokenWithHealthCheck
	cached    authenticator.Token
	transport *issuerTransport
	client    *http.Client
	log       *slog.Logger
	life      context.Context
	cancel    context.CancelFunc
	settled   chan struct{} // closed after the first discovery
	failing   atomic.Bool
}

// newIssuer starts discovery, and ends with life or its close.
func newIssuer(life context.Context, config apiserver.JWTAuthenticator, compiler authenticationcel.Compiler, dial dialFunc, log *slog.Logger) (*issuer, error) {
	transport, err := newIssuerTransport(config.Issuer.CertificateAuthority, dial)
	if err != nil {
		return nil, fmt.Errorf("issuer %s: certificateAuthority: %w", config.Issuer.URL, err)
	}
	i := &issuer{
		config: config, transport: transport, log: log, settled: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: DefaultTimeout},
	}
	i.life, i.cancel = context.WithCancel(life)
	i.tokens, err = oidc.New(i.life, oidc.Options{
		JWTAuthenticator: config, Client: i.client, Compiler: compiler,
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
	})
	if err != nil {
		i.close()
		return nil, fmt.Errorf("issuer %s: %w", config.Issuer.URL, err)
	}
	i.cached = newBoundedCache(authenticator.TokenFunc(i.judge), DefaultCacheTTL, DefaultFailureTTL, maxIssuerVerdicts)
	go i.settle()
	return i, nil
}

// settle ends when the first discovery has, or the issuer is closed.
func (i *issuer) settle() {
	defer close(i.settled)
	ticker := time.NewTicker(settleInterval)
	defer ticker.Stop()
	for {
		err := i.tokens.HealthCheck()
		switch {
		case err == nil:
			i.log.Info("oidc issuer is ready", "issuer", i.config.Issuer.URL)
			return
		case !strings.HasSuffix(err.Error(), "is not initialized"):
			i.failed(err)
			return
		}
		select {
		case <-ticker.C:
		case <-i.life.Done():
			return
		}
	}
}

// authenticate returns whom token is of, or an error: unauthenticated where the
// issuer or the rules of the configuration refuse it, unavailable where nobody could
// tell. The caller waits no longer than DefaultTimeout.
func (i *issuer) authenticate(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if err := notExpired(token); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	select {
	case <-i.settled:
	case <-ctx.Done():
		return nil, false, i.unavailable(fmt.Errorf("no answer within %v", DefaultTimeout))
	}
	response, ok, err := i.cached.AuthenticateToken(ctx, token)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && fault.As(err) == nil:
		return nil, false, i.unavailable(fmt.Errorf("no answer within %v", DefaultTimeout))
	case err != nil:
		return nil, false, err
	case !ok:
		return nil, false, unauthenticated(fmt.Errorf("the token names the issuer %s, whose tokens the hub judges by its authentication configuration alone: it is wrong, expired, for another audience or refused by a rule there", i.config.Issuer.URL))
	}
	return response, true, nil
}

// judge asks the authenticator. A refusal is (nil, false, nil), so that the cache
// can keep it; an error is a *fault.Error that says that nobody could judge.
func (i *issuer) judge(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	response, ok, err := i.tokens.AuthenticateToken(ctx, token)
	switch {
	case i.life.Err() != nil:
		return nil, false, i.unavailable(errors.New("it is no longer configured, or the hub is shutting down"))
	case err == nil && ok:
		i.recovered()
		return response, true, nil
	case err == nil:
		return nil, false, nil
	case i.tokens.HealthCheck() != nil || couldNotJudge(err):
		i.failed(err)
		return nil, false, i.unavailable(i.reason())
	default:
		i.log.Debug("oidc issuer's token is refused", "issuer", i.config.Issuer.URL, "reason", redact(err.Error(), token))
		return nil, false, nil
	}
}

// couldNotJudge tells a failure from a refusal, which the authenticator does by its
// words alone. What it says of a token's own claims comes after other words.
func couldNotJudge(err error) bool {
	for _, words := range []string{
		"oidc: authenticator not initialized",
		"oidc: verify token: failed to verify signature: fetching keys ",
		// Groups that the token leaves to another server are not known.
		"oidc: could not expand distributed claims: ",
	} {
		if strings.HasPrefix(err.Error(), words) {
			return true
		}
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// reason says in words for any caller why the issuer could not judge.
func (i *issuer) reason() error {
	what := "its keys or a claim cannot be fetched"
	if i.tokens.HealthCheck() != nil {
		what = "its discovery document is not there yet"
	}
	if err := i.transport.lastFailure(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return errors.New(what)
}

// problem returns why the issuer cannot judge, as far as is known; nil when it can.
func (i *issuer) problem() error {
	if i.tokens.HealthCheck() != nil || i.failing.Load() {
		return i.reason()
	}
	return nil
}

func (i *issuer) failed(err error) {
	if i.failing.CompareAndSwap(false, true) {
		i.log.Warn("oidc issuer is failing, callers with its tokens get 503", "issuer", i.config.Issuer.URL, "error", fmt.Sprintf("%.512v", err))
	}
}

func (i *issuer) recovered() {
	if i.failing.CompareAndSwap(true, false) {
		i.log.Info("oidc issuer works again", "issuer", i.config.Issuer.URL)
	}
}

func (i *issuer) unavailable(err error) *fault.Error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnavailable, RetryAfter: unavailableRetry,
		Err: fmt.Errorf("oidc issuer %s: %w", i.config.Issuer.URL, err),
	}
}

// close ends what is fetched. Later tokens get unavailable.
func (i *issuer) close() {
	i.cancel()
	i.transport.close()
}
