package identity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Defaults of [Config] and [TokenReviewConfig].
const (
	// DefaultPrefix marks a user or group of the hub on a managed cluster. It is
	// the one of Open Cluster Management, so that its RoleBindings keep working.
	DefaultPrefix = "cluster:hub:"
	// DefaultTimeout bounds what a caller waits for a token review, with retries.
	DefaultTimeout = 10 * time.Second
	// DefaultCacheTTL is how long an accepted token is not asked about again.
	DefaultCacheTTL = 10 * time.Second
	// DefaultFailureTTL is how long a refused token is not asked about again.
	DefaultFailureTTL = time.Second

	// The cache of k8s.io/apiserver ends a shared lookup after 30 s, so that a
	// longer timeout would not be kept.
	maxTimeout = 30 * time.Second
	// A revoked token works for up to this long.
	maxCacheTTL = time.Minute
)

// Config says how callers are authenticated and how they are mapped. The zero
// value is not valid, since it has no authenticator. It is plain data, copied by
// [New] and [NewMapper].
type Config struct {
	// TokenFile is a file of static tokens in kube-apiserver's format: CSV with
	// the columns token, user name, user UID and, optionally, a quoted list of
	// groups "group1,group2". Empty: no static tokens.
	// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file
	TokenFile string
	// AuthenticationConfig is a file with an AuthenticationConfiguration of
	// apiserver.config.k8s.io, any version: OIDC issuers with their claim mappings
	// and rules. A token that names one of the issuers is that issuer's to judge.
	// Empty: no issuers.
	// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
	AuthenticationConfig string
	// TokenReview asks a Kubernetes cluster about tokens that neither TokenFile nor
	// an issuer knows. Nil: no cluster is asked.
	TokenReview *TokenReviewConfig
	// PassThrough are the managed clusters that judge tokens of their own: what none
	// of the above knows goes there untouched; "*" is every cluster. Empty: none.
	PassThrough []string
	// ClientCA are the CAs of callers' client certificates, which are used by
	// requests without a token. Nil: certificates name nobody.
	ClientCA Roots

	// Prefix goes before each user name and group. Empty: DefaultPrefix. It can
	// neither begin with "system:" nor be the beginning of it.
	Prefix string
	// DeniedGroups are groups of the hub that are left out of the mapping, even
	// in their prefixed form. One "*" in each stands for any text. Nil:
	// {"system:masters"}; an empty, non-nil slice denies none.
	DeniedGroups []string
	// UserRules and GroupRules give names on managed clusters in place of prefixed
	// ones. The first that matches counts. A group in DeniedGroups is not looked up.
	UserRules  []Rule
	GroupRules []Rule
	// CarryExtra are the keys of extra that go to managed clusters, with one "*" in
	// each for any text. Nil: all; an empty, non-nil slice: none but the hub's own.
	CarryExtra []string
	// SetExtra is put over the extra of every user.
	SetExtra map[string][]string
}

// TokenReviewConfig says which cluster judges tokens. Exactly one of Kubeconfig
// and InCluster must be set.
type TokenReviewConfig struct {
	// Kubeconfig is a file whose current context is the judging cluster. Its
	// server must be https with verification on, since tokens are sent there.
	Kubeconfig string
	// InCluster uses the service account of the pod that the hub runs in.
	InCluster bool
	// Audiences are those that a token must have at least one of. Empty: the
	// default audience of the cluster's API server, which is what
	// `kubectl create token` gives.
	Audiences []string
	// Timeout bounds one review with its retries; 0 is DefaultTimeout, at most
	// 30 s. No caller waits longer.
	Timeout time.Duration
	// CacheTTL is how long an accepted token is not asked about again; 0 is
	// DefaultCacheTTL, at most one minute. A revoked token works that long; one
	// with an expiry of its own (JWT claim exp) never works past it.
	CacheTTL time.Duration
	// FailureTTL is the same for a refused token; 0 is DefaultFailureTTL, at most
	// one minute. Failures of the cluster are never kept.
	FailureTTL time.Duration
}

// Validate returns every problem of c at once, each with the path of its field,
// joined by [errors.Join]. It reads no files.
func (c *Config) Validate() error {
	var problems []error
	if c.TokenFile == "" && c.AuthenticationConfig == "" && c.TokenReview == nil && c.ClientCA == nil {
		problems = append(problems, errors.New("tokenFile, tokenReview, clientCA: nobody can be authenticated: set at least one of them, or authenticationConfig"))
	}
	for i, cluster := range c.PassThrough {
		if cluster != everyCluster && len(validation.IsDNS1123Label(cluster)) > 0 {
			problems = append(problems, fmt.Errorf("passThrough.clusters[%d]: %q is no name of a cluster: name one, or * for all", i, cluster))
		}
	}
	if c.TokenReview != nil {
		problems = append(problems, c.TokenReview.problems("tokenReview")...)
	}
	return errors.Join(append(problems, c.mappingProblems()...)...)
}

// ValidateMapping is the part of Validate that [NewMapper] checks: prefix, denyGroups,
// userRules, groupRules, extra.carry and extra.set, which are the paths in its
// problems.
func (c *Config) ValidateMapping() error { return errors.Join(c.mappingProblems()...) }

func (c *TokenReviewConfig) problems(path string) []error {
	var problems []error
	switch {
	case c.Kubeconfig == "" && !c.InCluster:
		problems = append(problems, fmt.Errorf("%s: no cluster is named: set kubeconfig or inCluster", path))
	case c.Kubeconfig != "" && c.InCluster:
		problems = append(problems, fmt.Errorf("%s: kubeconfig and inCluster exclude each other: set one of them", path))
	}
	for i, audience := range c.Audiences {
		if audience == "" {
			problems = append(problems, fmt.Errorf("%s.audiences[%d]: is empty: name an audience or remove it", path, i))
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
		limit time.Duration
	}{
		{"timeout", c.Timeout, maxTimeout},
		{"cacheTTL", c.CacheTTL, maxCacheTTL},
		{"failureTTL", c.FailureTTL, maxCacheTTL},
	} {
		if d.value < 0 || d.value > d.limit {
			problems = append(problems, fmt.Errorf("%s.%s: %v is out of range: use more than 0s and at most %v", path, d.field, d.value, d.limit))
		}
	}
	return problems
}

func (c *Config) mappingProblems() []error {
	var problems []error
	switch {
	case systemName(c.Prefix):
		problems = append(problems, fmt.Errorf("prefix: %q would make system users and groups of the managed cluster: begin it with something else", c.Prefix))
	case c.Prefix != "" && strings.HasPrefix(systemPrefix, c.Prefix):
		// "sys" and the group "tem:masters" would make system:masters.
		problems = append(problems, fmt.Errorf("prefix: %q is the beginning of %q and could be completed to it: begin it with something else", c.Prefix, systemPrefix))
	case !carried(c.Prefix) && c.Prefix != "":
		problems = append(problems, fmt.Errorf("prefix: %q cannot be carried in a header: use no control characters and no space at its ends", c.Prefix))
	}
	for i, group := range c.DeniedGroups {
		if group == "" {
			problems = append(problems, fmt.Errorf("denyGroups[%d]: is empty: name a group or remove it", i))
		}
		if err := patternProblem(group); err != nil {
			problems = append(problems, fmt.Errorf("denyGroups[%d]: %w", i, err))
		}
	}
	for i, rule := range c.UserRules {
		problems = append(problems, rule.problems(fmt.Sprintf("userRules[%d]", i), true)...)
	}
	for i, rule := range c.GroupRules {
		problems = append(problems, rule.problems(fmt.Sprintf("groupRules[%d]", i), false)...)
	}
	return append(problems, c.extraProblems()...)
}

func (c *Config) extraProblems() []error {
	var problems []error
	for i, key := range c.CarryExtra {
		if key == "" {
			problems = append(problems, fmt.Errorf("extra.carry[%d]: is empty: name a key or remove it", i))
		}
		if err := patternProblem(key); err != nil {
			problems = append(problems, fmt.Errorf("extra.carry[%d]: %w", i, err))
		}
	}
	for _, key := range sortedKeys(c.SetExtra) {
		path := fmt.Sprintf("extra.set[%q]", key)
		switch {
		case key == "" || key != strings.ToLower(key):
			problems = append(problems, fmt.Errorf("%s: is empty or has upper case, which a kube-apiserver does not keep: write it in lower case", path))
		case key == ExtraHubUser || key == ExtraAssumedUser || key == ExtraRequestID:
			problems = append(problems, fmt.Errorf("%s: is set by the hub: use another key", path))
		}
		for i, value := range c.SetExtra[key] {
			if !carried(value) {
				problems = append(problems, fmt.Errorf("%s[%d]: %q cannot be carried in a header: use no control characters and no space at its ends", path, i, value))
			}
		}
	}
	return problems
}

// withDefaults returns a copy of c that shares no slice or map with it.
func (c *Config) withDefaults() Config {
	d := *c
	if d.Prefix == "" {
		d.Prefix = DefaultPrefix
	}
	if d.DeniedGroups == nil {
		d.DeniedGroups = []string{user.SystemPrivilegedGroup}
	}
	d.DeniedGroups = slices.Clone(d.DeniedGroups)
	d.PassThrough = slices.Clone(d.PassThrough)
	d.UserRules, d.GroupRules = cloneRules(d.UserRules), cloneRules(d.GroupRules)
	d.CarryExtra = slices.Clone(d.CarryExtra)
	d.SetExtra = maps.Clone(d.SetExtra)
	for key, values := range d.SetExtra {
		d.SetExtra[key] = slices.Clone(values)
	}
	if c.TokenReview != nil {
		r := *c.TokenReview
		r.Audiences = slices.Clone(r.Audiences)
		r.Timeout = orDefault(r.Timeout, DefaultTimeout)
		r.CacheTTL = orDefault(r.CacheTTL, DefaultCacheTTL)
		r.FailureTTL = orDefault(r.FailureTTL, DefaultFailureTTL)
		d.TokenReview = &r
	}
	return d
}

func cloneRules(rules []Rule) []Rule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].To = slices.Clone(out[i].To)
	}
	return out
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// systemPrefix begins the names that Kubernetes keeps for itself.
const systemPrefix = "system:"

func systemName(name string) bool { return strings.HasPrefix(name, systemPrefix) }

// carried says whether s arrives unchanged as the value of a header field:
// RFC 9110 section 5.5 forbids control characters, and takes white space off
// both ends, so that "alice " would arrive as somebody else.
func carried(s string) bool {
	return httpguts.ValidHeaderFieldValue(s) && strings.Trim(s, " \t") == s
}
