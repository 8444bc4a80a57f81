package review

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	authorizationv1client "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// maxReviews bounds the reviews under way at once.
	maxReviews = 64
	// maxVerdicts bounds what is remembered: digests and two bits each.
	maxVerdicts = 16 << 10
	// maxSpec is the size of a question that is sent, in bytes.
	maxSpec = 256 << 10
	// unavailableRetry is what a caller is told to wait before another try.
	unavailableRetry = 2 * time.Second
)

// Defaults of [Config].
const (
	DefaultTimeout    = 10 * time.Second
	DefaultAllowedTTL = 10 * time.Second
	DefaultDeniedTTL  = 10 * time.Second
)

// Config sets up a [Reviewer].
type Config struct {
	// Cluster is how the management cluster's API server is reached; required, and
	// verified https. Its account needs to create subjectaccessreviews, as the
	// ClusterRole system:auth-delegator allows. It is not changed.
	Cluster *rest.Config
	// Timeout is for one review; default [DefaultTimeout].
	Timeout time.Duration
	// AllowedTTL and DeniedTTL are how long verdicts are remembered, which is how
	// late a change of a role counts; default [DefaultAllowedTTL] and
	// [DefaultDeniedTTL]. Negative: not at all.
	AllowedTTL, DeniedTTL time.Duration
	// Logger gets a line when reviews start to fail and when they work again. It is
	// required.
	Logger *slog.Logger
}

// Reviewer is a [policy.Authorizer] that asks a cluster. The same question is
// asked once at a time. It is safe for concurrent use.
type Reviewer struct {
	backend string
	timeout time.Duration
	ttl     map[bool]time.Duration // by verdict
	log     *slog.Logger
	client  *http.Client
	api     authorizationv1client.SubjectAccessReviewInterface

	life    context.Context
	end     context.CancelFunc
	slots   chan struct{}
	flights singleflight.Group
	cache   *cache.LRUExpireCache
	failing atomic.Bool
	closing sync.Once
}

var _ policy.Authorizer = (*Reviewer)(nil)

// New returns a reviewer, which asks nothing yet. The caller closes it.
func New(c Config) (*Reviewer, error) {
	if c.Logger == nil || c.Cluster == nil {
		return nil, errors.New("subjectAccessReview: a cluster and a logger are required")
	}
	server, _, err := rest.DefaultServerUrlFor(c.Cluster)
	if err != nil {
		return nil, fmt.Errorf("subjectAccessReview: the cluster's server: %w", err)
	}
	// Only scheme and host: the URL of a kubeconfig can hold a password.
	backend := server.Scheme + "://" + server.Host
	if server.Scheme != "https" || c.Cluster.Insecure {
		return nil, fmt.Errorf("subjectAccessReview: the cluster's server %s is not verified https, so that anybody between could allow anything: use its https address and certificate-authority", backend)
	}
	r := &Reviewer{
		backend: backend, timeout: orDefault(c.Timeout, DefaultTimeout), log: c.Logger,
		ttl:   map[bool]time.Duration{true: orDefault(c.AllowedTTL, DefaultAllowedTTL), false: orDefault(c.DeniedTTL, DefaultDeniedTTL)},
		slots: make(chan struct{}, maxReviews),
		cache: cache.NewLRUExpireCache(maxVerdicts),
	}
	config := rest.CopyConfig(c.Cluster)
	config.UserAgent = "culvert-hub"
	// Reviews are bounded by slots and the cache. A second limit in the client
	// would let callers wait without saying so.
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	if r.client, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("subjectAccessReview: credentials for %s: %w", backend, err)
	}
	r.client.CheckRedirect = refuseRedirect
	api, err := authorizationv1client.NewForConfigAndClient(config, r.client)
	if err != nil {
		return nil, fmt.Errorf("subjectAccessReview: client of %s: %w", backend, err)
	}
	r.api = api.SubjectAccessReviews()
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// refuseRedirect keeps a question, and the credential that it is asked with, from
// going to wherever an answer points.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Rule is the name in [policy.Decision.Rule] of what a reviewer decides.
const Rule = "(subjectaccessreview)"

// Authorize implements [policy.Authorizer].
func (r *Reviewer) Authorize(ctx context.Context, q policy.Request) (policy.Decision, error) {
	questions, nothing := questionsOf(q)
	if nothing != "" {
		return policy.Decision{Rule: policy.RuleInvalid, Reason: nothing}, nil
	}
	for _, way := range questions {
		allowed, err := r.askAll(ctx, way)
		if err != nil {
			return policy.Decision{Rule: Rule}, err
		}
		if allowed {
			return policy.Decision{Allowed: true, Rule: Rule, Reason: "the management cluster allows it"}, nil
		}
	}
	return policy.Decision{Rule: Rule, Reason: "the management cluster does not allow it: " + wanted(questions)}, nil
}

// askAll returns whether every question is answered with yes.
func (r *Reviewer) askAll(ctx context.Context, specs []authorizationv1.SubjectAccessReviewSpec) (bool, error) {
	for _, spec := range specs {
		if allowed, err := r.ask(ctx, spec); err != nil || !allowed {
			return false, err
		}
	}
	return len(specs) > 0, nil
}

// ask returns the verdict about one question.
func (r *Reviewer) ask(ctx context.Context, spec authorizationv1.SubjectAccessReviewSpec) (bool, error) {
	text, err := json.Marshal(spec)
	if err != nil || len(text) > maxSpec {
		return false, r.unavailable(fmt.Errorf("a question of %d bytes is too large to ask", len(text)))
	}
	key := sha256.Sum256(text)
	if verdict, ok := r.cache.Get(key); ok {
		return verdict.(bool), nil //nolint:forcetypeassert // only put below
	}
	// The review goes on when this caller leaves: others wait for it, and its
	// verdict is of use.
	flight := r.flights.DoChan(string(key[:]), func() (any, error) { return r.review(key, spec) })
	select {
	case result := <-flight:
		if result.Err != nil {
			return false, result.Err
		}
		return result.Val.(bool), nil //nolint:forcetypeassert // what review returns
	case <-ctx.Done():
		return false, &fault.Error{Hop: wire.HopHub, Op: "authorize", Code: codeOf(ctx.Err()), Err: context.Cause(ctx)}
	}
}

func codeOf(err error) wire.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return wire.CodeDeadlineExceeded
	}
	return wire.CodeCanceled
}

// review asks the cluster. It ends with its timeout or the reviewer's life.
func (r *Reviewer) review(key [sha256.Size]byte, spec authorizationv1.SubjectAccessReviewSpec) (bool, error) {
	ctx, cancel := context.WithTimeout(r.life, r.timeout)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer r.release()
	case <-ctx.Done():
		return false, r.unavailable(fmt.Errorf("%d reviews are already under way", cap(r.slots)))
	}
	answer, err := r.api.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	switch {
	case r.life.Err() != nil:
		return false, r.unavailable(errors.New("the hub is shutting down"))
	case err != nil:
		return false, r.failed(err, describe(ctx, err, r.timeout))
	case answer.Status.Allowed && answer.Status.Denied:
		err := errors.New("answered that it allows and denies")
		return false, r.failed(err, err)
	}
	if r.failing.CompareAndSwap(true, false) {
		r.log.Info("access review works again", "backend", r.backend)
	}
	if ttl := r.ttl[answer.Status.Allowed]; ttl > 0 {
		r.cache.Add(key, answer.Status.Allowed, ttl)
	}
	return answer.Status.Allowed, nil
}

func (r *Reviewer) release() { <-r.slots }

// failed logs the first failure after a success, with all that is known of it,
// and returns what a caller may read.
func (r *Reviewer) failed(err, public error) error {
	if r.failing.CompareAndSwap(false, true) {
		r.log.Warn("access review is failing, requests that need it get 503", "backend", r.backend, "error", err)
	}
	return r.unavailable(public)
}

func (r *Reviewer) unavailable(err error) *fault.Error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "authorize", Code: wire.CodeUnavailable, RetryAfter: unavailableRetry,
		Err: fmt.Errorf("access review at %s: %w", r.backend, err),
	}
}

// describe says what failed in words for any caller: not the text of an API
// error, which names the hub's own account.
func describe(ctx context.Context, err error, timeout time.Duration) error {
	status, isStatus := errors.AsType[*apierrors.StatusError](err)
	switch {
	case apierrors.IsForbidden(err):
		return errors.New("the hub may not create subjectaccessreviews: bind its account to the ClusterRole system:auth-delegator")
	case apierrors.IsUnauthorized(err):
		return errors.New("the hub's own credential is refused: renew it")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", timeout)
	case isStatus:
		return fmt.Errorf("answered with status %d %s", status.Status().Code, status.Status().Reason)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return errors.New("its answer is no review")
}

// wanted names the rights that would do, the widest first.
func wanted(questions [][]authorizationv1.SubjectAccessReviewSpec) string {
	var ways []string
	for _, all := range questions {
		var rights []string
		for _, spec := range all {
			a := spec.ResourceAttributes
			right := a.Verb + " " + a.Resource
			if a.Subresource != "" {
				right += "/" + a.Subresource
			}
			if a.Group != "" {
				right += "." + a.Group
			}
			rights = append(rights, fmt.Sprintf("%s %.200q", right, a.Name))
		}
		ways = append(ways, strings.Join(rights, " and "))
	}
	return "wants " + strings.Join(ways, ", or ")
}

// Close ends the reviews under way, waits for them, and closes idle connections.
func (r *Reviewer) Close() { r.closing.Do(r.drain) }

// drain takes every slot once; none is given to a review while it holds them.
func (r *Reviewer) drain() {
	r.end()
	for range cap(r.slots) {
		r.slots <- struct{}{}
	}
	for range cap(r.slots) {
		<-r.slots
	}
	utilnet.CloseIdleConnectionsFor(r.client.Transport)
}
