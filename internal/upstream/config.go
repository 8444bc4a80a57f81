package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/telemetry"
)

const (
	// DefaultDialTimeout bounds a connection attempt: name, TCP and TLS each.
	DefaultDialTimeout = 10 * time.Second
	// DefaultZone is the cluster domain of
	// https://github.com/kubernetes/dns/blob/master/docs/specification.md.
	DefaultZone = "cluster.local"
)

// Config sets up an [Upstream]. It is read by [New] and not kept or changed.
type Config struct {
	// Kubernetes is how the managed cluster's API server is reached, see
	// [LoadKubernetes]. Without it there is no such target. Files it names
	// (token, client certificate) are read again when they rotate.
	Kubernetes *rest.Config
	// KubernetesEndpoints are host:port of API servers in the place of the address
	// that Kubernetes has: each request and each raw session goes to one of them. A
	// name stands for all of its addresses. The name that their certificates are for,
	// the CA and the Host header stay those of Kubernetes.
	KubernetesEndpoints []string
	// KubernetesBalance says how one is chosen; default
	// [balance.LeastOutstanding].
	KubernetesBalance balance.Method
	// Probe says how endpoints are asked whether they work. With the zero value they
	// count as healthy, whatever happens.
	Probe Probe
	// KubernetesChanged is told when the API server has become ready, or not so, or
	// for another reason: one call at a time. It must not block. It may be nil.
	KubernetesChanged func(balance.State)
	// Policy is the cluster owner's, asked for every request and every open of an
	// address; an error refuses. Files are read with [policy.Options.Agent].
	// Without it the Kubernetes API may be reached and nothing else.
	Policy policy.Authorizer
	// Services and Addresses are what may be reached beside, where no rule of
	// Policy matches: one that denies wins.
	Services  []ServiceRule
	Addresses []AddressRule
	// SpecialAddresses are ranges of special addresses (loopback, link-local, cloud
	// metadata and the like, see docs/security.md) that names of services may lead
	// to. Default none. For raw addresses, a rule that names them is needed instead.
	SpecialAddresses []netip.Prefix
	// ReadOnly refuses what is more than reading, whatever other rules say: of the
	// Kubernetes API all but get, list and watch, and exec, attach, portforward,
	// proxy and upgrades in any form; of services all methods but GET, HEAD and
	// OPTIONS; raw addresses.
	ReadOnly bool
	// Impersonation is whom the agent acts for at the API server. It holds for
	// whatever the hub sends.
	Impersonation Impersonation
	// PassThrough lets requests to the API server through that have the caller's
	// own token for it and nobody to impersonate. They carry no credential of the
	// agent.
	PassThrough bool
	// Observer is told of requests, decisions and dials, and gives requests to
	// targets their traceparent.
	Observer telemetry.Observer
	// ServiceCA is the file of PEM certificates that verify HTTPS services, read
	// again when it changes. Without it the CA of Kubernetes does, and where
	// that is not set either, the CAs of the system.
	ServiceCA string
	// DNSServer is the host:port of the resolver for all names; default the
	// system's.
	DNSServer string
	// Zone is the cluster's domain; default [DefaultZone].
	Zone string
	// DialTimeout is the time for one connection attempt; default
	// [DefaultDialTimeout].
	DialTimeout time.Duration
	// Logger gets one line a request at info. It is required.
	Logger *slog.Logger
}

// Validate names everything that is wrong, with the field.
func (c *Config) Validate() error {
	var problems []error
	if c.Logger == nil {
		problems = append(problems, errors.New("logger: required"))
	}
	if c.DialTimeout < 0 {
		problems = append(problems, fmt.Errorf("dialTimeout: %v is negative", c.DialTimeout))
	}
	if c.DNSServer != "" {
		if _, _, err := net.SplitHostPort(c.DNSServer); err != nil {
			problems = append(problems, fmt.Errorf("dnsServer: want host:port: %w", err))
		}
	}
	for i, rule := range c.Services {
		if err := rule.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("services[%d]: %w", i, err))
		}
	}
	for i, rule := range c.Addresses {
		if err := rule.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("addresses[%d]: %w", i, err))
		}
	}
	for i, prefix := range c.SpecialAddresses {
		if err := checkSpecialPrefix(prefix); err != nil {
			problems = append(problems, fmt.Errorf("specialAddresses[%d]: %w", i, err))
		}
	}
	if err := balance.CheckEndpoints(c.KubernetesEndpoints); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesEndpoints: %w", err))
	}
	if err := balance.CheckMethod(c.KubernetesBalance); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesBalance: %w", err))
	}
	if err := c.Probe.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesProbe: %w", err))
	}
	if err := c.Impersonation.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("impersonation: %w", err))
	}
	if k := c.Kubernetes; k != nil {
		if imp := k.Impersonate; imp.UserName != "" || imp.UID != "" || len(imp.Groups) > 0 || len(imp.Extra) > 0 {
			problems = append(problems, errors.New("kubernetes: the credentials impersonate somebody (\"as\" in the kubeconfig); "+
				"the agent impersonates the hub's users itself, use credentials without it"))
		}
		if k.Transport != nil {
			problems = append(problems, errors.New("kubernetes: a custom transport is not supported, set its parts"))
		}
	}
	return errors.Join(problems...)
}

// LoadKubernetes returns the configuration of a kubeconfig file and one of its
// contexts (empty: the current one), or for an empty file name that of the pod's
// service account.
func LoadKubernetes(kubeconfig, context string) (*rest.Config, error) {
	if kubeconfig == "" {
		if context != "" {
			return nil, fmt.Errorf("context: %q given without a kubeconfig, which would have it", context)
		}
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("read in-cluster credentials (give a kubeconfig outside of a cluster): %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: context},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return cfg, nil
}
