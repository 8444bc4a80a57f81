package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// ServiceAccountRule lets one service account be the agent of one cluster. All
// fields are required, and none is a pattern.
type ServiceAccountRule struct {
	// Audience is what the account's token must be for, so that a token which was
	// made for somebody else, and taken from there, joins nothing.
	Audience string
	// Namespace and Name are the account's.
	Namespace, Name string
	// Cluster is which cluster it joins as.
	Cluster string
}

// String returns the rule for people.
func (r ServiceAccountRule) String() string {
	return fmt.Sprintf("service account %s/%s with audience %s as cluster %s", r.Namespace, r.Name, r.Audience, r.Cluster)
}

func (r ServiceAccountRule) problems(path string) []error {
	var problems []error
	if r.Audience == "" {
		problems = append(problems, fmt.Errorf("%s.audience: required: a token for everybody would join, name what the agent asks its token for", path))
	}
	for _, field := range []struct {
		name, value string
		check       func(string) []string
	}{
		{"namespace", r.Namespace, validation.IsDNS1123Label},
		{"name", r.Name, validation.IsDNS1123Subdomain},
		{"cluster", r.Cluster, validation.IsDNS1123Label},
	} {
		for _, reason := range field.check(field.value) {
			problems = append(problems, fmt.Errorf("%s.%s: %q: %s", path, field.name, field.value, reason))
		}
	}
	return problems
}

// CheckServiceAccountRules names everything that is wrong with rules, by path of
// the field, where path is that of the list.
func CheckServiceAccountRules(path string, rules []ServiceAccountRule) error {
	var problems []error
	for i, rule := range rules {
		problems = append(problems, rule.problems(fmt.Sprintf("%s[%d]", path, i))...)
	}
	return errors.Join(problems...)
}

// ServiceAccounts decides which cluster a service account's token joins, by a
// TokenReview of the cluster that made the token. It keeps no verdict: a token
// that was revoked joins nothing from then on. It is safe for concurrent use and
// belongs to its maker, who closes it.
type ServiceAccounts struct {
	review    *reviewer
	rules     []ServiceAccountRule
	audiences []string
	log       *slog.Logger
	cancel    context.CancelFunc
}

// NewServiceAccounts reads the credentials that cfg names; of cfg only the
// cluster and Timeout count, since each rule has an audience of its own. The
// reviews end when ctx does. It asks nobody yet.
func NewServiceAccounts(ctx context.Context, cfg TokenReviewConfig, rules []ServiceAccountRule, log *slog.Logger) (*ServiceAccounts, error) {
	cfg.Audiences = nil
	if err := errors.Join(append(cfg.problems("tokenReview"), CheckServiceAccountRules("serviceAccounts", rules))...); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cluster, err := clusterConfig(&cfg)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	life, cancel := context.WithCancel(ctx)
	review, err := newReviewer(life, cluster, orDefault(cfg.Timeout, DefaultTimeout), log)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("identity: %w", err)
	}
	s := &ServiceAccounts{review: review, rules: slices.Clone(rules), log: log, cancel: cancel}
	for _, rule := range rules {
		if !slices.Contains(s.audiences, rule.Audience) {
			s.audiences = append(s.audiences, rule.Audience)
		}
	}
	return s, nil
}

// Verify returns the cluster that a token joins and, for logs, whose it is. With
// wanted empty the token must be good for exactly one cluster. The error is a
// [*fault.Error]: unauthenticated for a token that the cluster refuses or that is
// for other audiences, permission denied where no rule fits its account,
// unavailable where nobody could judge. It never has anything of the token.
func (s *ServiceAccounts) Verify(ctx context.Context, token, wanted string) (cluster, account string, err error) {
	if reason := malformedToken(token); reason != "" || token == "" {
		return "", "", unenrolled(wire.CodeUnauthenticated, "the service account's token is empty or malformed%s", also(reason))
	}
	response, ok, err := s.review.AuthenticateToken(authenticator.WithAudiences(ctx, s.audiences), token)
	switch {
	case err != nil && fault.As(err) != nil:
		return "", "", err
	case err != nil:
		return "", "", &fault.Error{Hop: wire.HopHub, Op: "enrol", Code: wire.CodeInternal, Err: err}
	case !ok || response == nil || response.User == nil:
		return "", "", unenrolled(wire.CodeUnauthenticated,
			"the service account's token is wrong, expired or for another audience, want one for %s", strings.Join(s.audiences, " or "))
	}
	account = response.User.GetName()
	namespace, name, err := serviceaccount.SplitUsername(account)
	if err != nil {
		return "", "", unenrolled(wire.CodePermissionDenied, "the token is of %q, who is no service account", account)
	}
	var clusters []string
	for _, rule := range s.rules {
		if rule.Namespace == namespace && rule.Name == name && slices.Contains(response.Audiences, rule.Audience) {
			clusters = append(clusters, rule.Cluster)
		}
	}
	slices.Sort(clusters)
	clusters = slices.Compact(clusters)
	switch {
	case len(clusters) == 0:
		return "", account, unenrolled(wire.CodePermissionDenied,
			"no rule in enrolment.serviceAccounts of the hub lets %s join with a token for %s", account, strings.Join(response.Audiences, ", "))
	case wanted != "" && !slices.Contains(clusters, wanted):
		return "", account, unenrolled(wire.CodePermissionDenied,
			"no rule in enrolment.serviceAccounts of the hub lets %s join as cluster %s", account, wanted)
	case wanted == "" && len(clusters) > 1:
		return "", account, unenrolled(wire.CodeInvalidTarget,
			"%s may join as %s: say which one with --cluster", account, strings.Join(clusters, " or "))
	case wanted == "":
		wanted = clusters[0]
	}
	return wanted, account, nil
}

func also(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func unenrolled(code wire.Code, format string, args ...any) *fault.Error {
	return &fault.Error{Hop: wire.HopHub, Op: "enrol", Code: code, Err: fmt.Errorf(format, args...)}
}

// Close ends the reviews under way and waits for them. It may be called more
// than once.
func (s *ServiceAccounts) Close() {
	s.cancel()
	s.review.close()
}
