package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	authenticationv1client "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// maxReviews bounds the reviews under way at once, so that a flood of bad
	// tokens does not become one on the hub cluster.
	maxReviews = 64
	// maxVerdicts bounds what a cache remembers, at about 1 KiB each.
	maxVerdicts = 16 << 10
	// unavailableRetry is what a caller is told to wait before another try.
	unavailableRetry = 2 * time.Second
)

// retryBackoff is for answers that k8s.io/apiserver takes for passing: 429, 500,
// 504 and resets. Four attempts take about 1.4 s beside the answers' own time.
var retryBackoff = wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4}

// reviewer asks one cluster about tokens with the webhook authenticator of
// k8s.io/apiserver, and tells that cluster's refusals from its failures. It is
// safe for concurrent use.
type reviewer struct {
	life    context.Context
	backend string
	base    *url.URL // of the cluster's API
	timeout time.Duration
	webhook authenticator.Token
	client  *http.Client
	log     *slog.Logger
	slots   chan struct{}
	failing atomic.Bool
	closing sync.Once
}

// newReviewer makes a reviewer whose reviews end when life does. config must be
// verified https; it is not changed.
func newReviewer(life context.Context, config *rest.Config, timeout time.Duration, log *slog.Logger) (*reviewer, error) {
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("tokenReview: the cluster's server: %w", err)
	}
	// Only scheme and host: the URL of a kubeconfig can hold a password.
	backend := server.Scheme + "://" + server.Host
	if server.Scheme != "https" {
		return nil, fmt.Errorf("tokenReview: the cluster's server %s would get tokens in clear text: use its https address", backend)
	}
	if config.Insecure {
		return nil, fmt.Errorf("tokenReview: the cluster's server %s is not verified, so that anybody between could name any user: replace insecure-skip-tls-verify by certificate-authority", backend)
	}
	config = rest.CopyConfig(config)
	config.UserAgent = "culvert-hub"
	config.Timeout = timeout
	// Requests are bounded by slots and the cache. A second limit in the client
	// would let callers wait without saying so.
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	config.Wrap(newReviewTransport)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("tokenReview: credentials for %s: %w", backend, err)
	}
	client.CheckRedirect = refuseRedirect
	// Each review is bounded by its context. A second clock in the client would
	// race with it and give the same failure two texts.
	client.Timeout = 0
	api, err := authenticationv1client.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("tokenReview: client of %s: %w", backend, err)
	}
	// No implicit audiences: a cluster that does not confirm one of the wanted
	// audiences has not checked them.
	hook, err := webhook.NewFromInterface(api, nil, retryBackoff, timeout, webhook.AuthenticatorMetrics{
		RecordRequestTotal:   func(context.Context, string) {},
		RecordRequestLatency: func(context.Context, string, float64) {},
	})
	if err != nil {
		return nil, fmt.Errorf("tokenReview: authenticator of %s: %w", backend, err)
	}
	return &reviewer{
		life: life, backend: backend, base: server, timeout: timeout, webhook: hook, client: client, log: log,
		slots: make(chan struct{}, maxReviews),
	}, nil
}

// refuseRedirect keeps a token from being posted to wherever an answer points.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// AuthenticateToken implements authenticator.Token. Its error is always a
// *fault.Error that says that the cluster could not judge; a token which the
// cluster refused is (nil, false, nil), so that the cache can keep that.
func (r *reviewer) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()

	select {
	case r.slots <- struct{}{}:
		defer r.release()
	case <-ctx.Done():
		return nil, false, r.unavailable(fmt.Errorf("%d reviews are already under way", cap(r.slots)))
	}

	review := &reviewRecord{token: token}
	ctx = context.WithValue(ctx, reviewKey{}, review)
	// The client would log the request's body, which is the token, at -v=8.
	ctx = klog.NewContext(ctx, logr.Discard())
	response, ok, err := r.webhook.AuthenticateToken(ctx, token)
	switch {
	case err == nil:
		r.recovered()
		return response, ok, nil
	case review.refusal != "" && err.Error() == review.refusal:
		r.recovered()
		r.log.Debug("token review refused a token", "backend", r.backend, "reason", redact(review.refusal, token))
		return nil, false, nil
	case ctx.Err() != nil && r.life.Err() != nil:
		return nil, false, r.unavailable(errors.New("the hub is shutting down"))
	default:
		return nil, false, r.failed(err, describe(ctx, err, r.timeout))
	}
}

func (r *reviewer) release() { <-r.slots }

// failed logs the first failure after a success, with all that is known of it,
// and returns what a caller may read.
func (r *reviewer) failed(err, public error) error {
	if r.failing.CompareAndSwap(false, true) {
		r.log.Warn("token review is failing, callers without a static token get 503", "backend", r.backend, "error", err)
	}
	return r.unavailable(public)
}

func (r *reviewer) recovered() {
	if r.failing.CompareAndSwap(true, false) {
		r.log.Info("token review works again", "backend", r.backend)
	}
}

func (r *reviewer) unavailable(err error) *fault.Error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnavailable, RetryAfter: unavailableRetry,
		Err: fmt.Errorf("token review at %s: %w", r.backend, err),
	}
}

// describe says what failed in words for any caller, who may be a stranger: not
// the URL, which the backend's name already gives, and not the text of an API
// error, which names the hub's own account.
func describe(ctx context.Context, err error, timeout time.Duration) error {
	status, isStatus := errors.AsType[*apierrors.StatusError](err)
	switch {
	case apierrors.IsForbidden(err):
		return errors.New("the hub may not create tokenreviews: bind its account to the ClusterRole system:auth-delegator")
	case apierrors.IsUnauthorized(err):
		return errors.New("the hub's own credential is refused: renew it")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", timeout, unwrapURL(err))
	case isStatus:
		return fmt.Errorf("answered with status %d %s", status.Status().Code, status.Status().Reason)
	default:
		return unwrapURL(err)
	}
}

func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// close waits for the reviews under way, which end when the reviewer's life has
// ended, and closes idle connections.
func (r *reviewer) close() { r.closing.Do(r.drain) }

// drain takes every slot once; none is given to a review while it holds them.
func (r *reviewer) drain() {
	for range cap(r.slots) {
		r.slots <- struct{}{}
	}
	for range cap(r.slots) {
		<-r.slots
	}
	utilnet.CloseIdleConnectionsFor(r.client.Transport)
}
