package server

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/telemetry"
)

// The types of parts of [Config] that other rooms define. Programs that embed a hub
// use these names.
type (
	// Audit says where audit lines go. Without a sink there are none.
	Audit = audit.Config
	// AuditFile, AuditStdout and AuditWebhook are its sinks.
	AuditFile    = audit.FileConfig
	AuditStdout  = audit.StdoutConfig
	AuditWebhook = audit.WebhookConfig
	// Limits bound what networks, users and clusters can ask for.
	Limits = limit.Config
	// Bounds are those of one network, user or cluster.
	Bounds = limit.Bounds
	// IdentityRule maps names of the hub to names on managed clusters.
	IdentityRule = identity.Rule
	// Telemetry says where traces go.
	Telemetry = telemetry.Settings
)

// Identity says who callers are on managed clusters.
type Identity struct {
	// Prefix is the same as Config.IdentityPrefix; give one of the two.
	Prefix string `json:"prefix,omitempty"`
	// UserRules and GroupRules give names on managed clusters in place of prefixed
	// ones. The first that matches counts.
	UserRules  []IdentityRule `json:"userRules,omitempty"`
	GroupRules []IdentityRule `json:"groupRules,omitempty"`
	// DenyGroups are left out, with one "*" in each for any text. Default
	// "system:masters"; an empty list leaves out none.
	DenyGroups []string `json:"denyGroups,omitempty"`
	// Extra says what goes to clusters beside names, groups and UID.
	Extra *IdentityExtra `json:"extra,omitempty"`
}

// IdentityExtra is about the extra of users.
type IdentityExtra struct {
	// Carry are the keys that go to managed clusters, with one "*" in each for any
	// text. Default all; an empty list: none but the hub's own.
	Carry []string `json:"carry,omitempty"`
	// Set is put over the extra of every user.
	Set map[string][]string `json:"set,omitempty"`
}

// Policy says who may do what. Without it callers reach the Kubernetes API of every
// cluster, whose own RBAC decides, and nothing else. With both fields, both have to
// allow.
type Policy struct {
	// File is a policy file, read again when it changes.
	File string `json:"file,omitempty"`
	// SubjectAccessReview asks a Kubernetes cluster.
	SubjectAccessReview *SubjectAccessReview `json:"subjectAccessReview,omitempty"`
}

// SubjectAccessReview names the Kubernetes cluster that is asked who may do what.
type SubjectAccessReview struct {
	// Kubeconfig is a file with the hub's credentials for that cluster; InCluster
	// uses those of the pod. Exactly one of the two is set.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	InCluster  bool   `json:"inCluster,omitempty"`
	// Timeout is for one review. Default 10 s.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// AllowedTTL and DeniedTTL are how long verdicts are remembered. Default 10 s.
	AllowedTTL metav1.Duration `json:"allowedTTL,omitzero"`
	DeniedTTL  metav1.Duration `json:"deniedTTL,omitzero"`
}

// maxReviewTTL bounds how late a change of a role counts, and how long a caller
// waits.
const maxReviewTTL = time.Minute

func (p *Policy) problems() []error {
	if p == nil || p.SubjectAccessReview == nil {
		return nil
	}
	const path = "policy.subjectAccessReview"
	var problems []error
	r := p.SubjectAccessReview
	switch {
	case r.Kubeconfig == "" && !r.InCluster:
		problems = append(problems, errors.New(path+": no cluster is named: set kubeconfig or inCluster"))
	case r.Kubeconfig != "" && r.InCluster:
		problems = append(problems, errors.New(path+": kubeconfig and inCluster exclude each other: set one of them"))
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"timeout", r.Timeout.Duration}, {"allowedTTL", r.AllowedTTL.Duration}, {"deniedTTL", r.DeniedTTL.Duration}} {
		if d.value < 0 || d.value > maxReviewTTL {
			problems = append(problems, fmt.Errorf("%s.%s: %v is out of range: want at most %v, or nothing for the default", path, d.field, d.value, maxReviewTTL))
		}
	}
	return problems
}

// PassThrough says whose tokens managed clusters judge.
type PassThrough struct {
	// Clusters are names, or "*" for all: a token that the hub does not know goes to
	// the Kubernetes API of these clusters as it is, and nobody is impersonated. Their
	// agents have to allow that, too.
	Clusters []string `json:"clusters,omitempty"`
}

// LeastHeaderBytes is that of Config.HeaderBytes: the head of a request with a
// large token.
const LeastHeaderBytes = 16 << 10

// accessProblems judges what says who may do what.
func (c *Config) accessProblems() []error {
	problems := c.Policy.problems()
	if c.Audit != nil {
		problems = append(problems, prefixed("audit", c.Audit.Validate())...)
	}
	if c.Limits != nil {
		problems = append(problems, prefixed("limits", c.Limits.Validate())...)
	}
	if c.Telemetry != nil {
		if err := c.Telemetry.Validate(); err != nil {
			problems = append(problems, err)
		}
	}
	if c.Identity != nil && c.Identity.Prefix != "" && c.IdentityPrefix != "" {
		problems = append(problems, errors.New("identity.prefix, identityPrefix: are the same: give one of them"))
	}
	if c.DebugListen != "" {
		if _, _, err := net.SplitHostPort(c.DebugListen); err != nil {
			problems = append(problems, fmt.Errorf("debugListen: want host:port of this machine alone: %w", err))
		}
	}
	if n := c.HeaderBytes; n != 0 && n < LeastHeaderBytes {
		problems = append(problems, fmt.Errorf("headerBytes: %d is less than %d, which a token and its fields take", n, LeastHeaderBytes))
	}
	return problems
}

// identityFields are the names of fields in package identity, and what they are
// called in a configuration.
var identityFields = [...][2]string{
	{"prefix:", "identityPrefix:"}, {"passThrough[", "passThrough.clusters["},
	{"userRules[", "identity.userRules["}, {"groupRules[", "identity.groupRules["}, {"deniedGroups[", "identity.denyGroups["},
	{"carryExtra[", "identity.extra.carry["}, {"setExtra[", "identity.extra.set["},
}

// named gives the problems of package identity the names of a configuration.
func named(err error) []error {
	if err == nil {
		return nil
	}
	problems := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		problems = several.Unwrap()
	}
	for i, problem := range problems {
		for _, field := range identityFields {
			if rest, ok := strings.CutPrefix(problem.Error(), field[0]); ok {
				problems[i] = errors.New(field[1] + rest)
			}
		}
	}
	return problems
}

// prefixed puts the path of a part before each problem of it.
func prefixed(path string, err error) []error {
	if err == nil {
		return nil
	}
	problems := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		problems = several.Unwrap()
	}
	for i, problem := range problems {
		problems[i] = fmt.Errorf("%s.%w", path, problem)
	}
	return problems
}
