package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/culvertdev/culvert/internal/identity"
)

// Defaults of [Config].
const (
	DefaultListen      = ":8443"
	DefaultTrustDomain = "culvert.local"
	// DefaultIdentityPrefix is that of Open Cluster Management.
	DefaultIdentityPrefix = identity.DefaultPrefix
	DefaultDrainTimeout   = 15 * time.Second
	// DefaultMemory and LeastMemory are of Config.Memory, in bytes.
	DefaultMemory      = 512 << 20
	LeastMemory        = 32 << 20
	DefaultOpenTimeout = 15 * time.Second
)

// Config sets up a hub. The JSON names are those of the configuration file;
// unknown ones are errors. It is copied by [New].
type Config struct {
	// Listen are the addresses that serve clients and agents alike. Default
	// ":8443".
	Listen []string `json:"listen,omitempty"`
	// AgentListen are addresses that serve agents only. Default none.
	AgentListen []string `json:"agentListen,omitempty"`
	// Hosts gives clusters host names. Default none.
	Hosts *Hosts `json:"hosts,omitempty"`
	// ProxyProtocol takes the word of load balancers about clients' addresses. Default
	// of none.
	ProxyProtocol *ProxyProtocol `json:"proxyProtocol,omitempty"`
	// State is the folder with the hub's CAs and its store, created at first
	// start. Required.
	State string `json:"state,omitempty"`
	// Advertise is the host:port at which agents reach the hub; join tokens have
	// it. Default: the first of the certificate's names that is not of this machine
	// alone, with the port of the first of Listen.
	Advertise string `json:"advertise,omitempty"`
	// TLSCert and TLSKey are files of the serving certificate, read again when
	// they change: PEM or base64 of PEM. Without TLSKey, TLSCert has both, in any
	// order. Without either, and as long as neither exists, the hub issues its own
	// for TLSNames.
	TLSCert string `json:"tlsCert,omitempty"`
	TLSKey  string `json:"tlsKey,omitempty"`
	// TLSNames are DNS names and IP addresses for the certificate that the hub
	// issues itself. Default localhost, 127.0.0.1 and ::1.
	TLSNames []string `json:"tlsNames,omitempty"`
	// TLS has the further settings of serving clients.
	TLS *TLS `json:"tls,omitempty"`
	// ACME gets the serving certificate from a public CA.
	ACME *ACME `json:"acme,omitempty"`
	// Certificates says who signs what, and for how long.
	Certificates *Certificates `json:"certificates,omitempty"`
	// Enrolment says how agents join.
	Enrolment *Enrolment `json:"enrolment,omitempty"`
	// Admins may administer the hub over HTTPS. Default nobody.
	Admins *Admins `json:"admins,omitempty"`
	// AgentCA is a PEM file of the CAs that agents' certificates come from, read
	// again when it changes: the same as Certificates.Agents without a key. Default
	// the agents CA of the state folder.
	AgentCA string `json:"agentCA,omitempty"`
	// AgentAuthorities are further CAs of agents' certificates, which somebody else
	// signs with and renews, each with a rule of its own about whose agent it is.
	// Default none.
	AgentAuthorities []AgentAuthority `json:"agentAuthorities,omitempty"`
	// TrustDomain is that of agents' SPIFFE ids. Default "culvert.local".
	TrustDomain string `json:"trustDomain,omitempty"`
	// TokenFile has static tokens in kube-apiserver's CSV form
	// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file).
	TokenFile string `json:"tokenFile,omitempty"`
	// AuthenticationConfig is a file of OIDC issuers in kube-apiserver's format,
	// AuthenticationConfiguration of apiserver.config.k8s.io
	// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration),
	// read again when it changes.
	AuthenticationConfig string `json:"authenticationConfig,omitempty"`
	// TokenReview lets a Kubernetes cluster judge tokens.
	TokenReview *TokenReview `json:"tokenReview,omitempty"`
	// PassThrough lets managed clusters judge tokens of their own. Default none.
	PassThrough *PassThrough `json:"passThrough,omitempty"`
	// IdentityPrefix marks users and groups of the hub on managed clusters. It
	// must not make a name of Kubernetes' own ("system:…") of any other. Default
	// "cluster:hub:", as Open Cluster Management has it.
	IdentityPrefix string `json:"identityPrefix,omitempty"`
	// Identity has the further rules by which callers become users of clusters.
	Identity *Identity `json:"identity,omitempty"`
	// Policy says who may do what. Default: the Kubernetes API of every cluster, and
	// nothing else.
	Policy *Policy `json:"policy,omitempty"`
	// Connect says where HTTP CONNECT leads to. Default: to no host.
	Connect *Connect `json:"connect,omitempty"`
	// WebSocket is about raw TCP over WebSocket. Default: on Listen alone.
	WebSocket *WebSocket `json:"websocket,omitempty"`
	// Audit says where audit lines go. Default nowhere.
	Audit *Audit `json:"audit,omitempty"`
	// Limits bound what callers can ask for. Default nothing.
	Limits *Limits `json:"limits,omitempty"`
	// HeaderBytes bounds the head of a request, in bytes. Default 256 KiB.
	HeaderBytes int `json:"headerBytes,omitempty"`
	// Name is the hub's in audit lines and traces. Default the machine's.
	Name string `json:"name,omitempty"`
	// DrainTimeout is how long requests and sessions may go on once the hub is
	// told to end. Default 15 s.
	DrainTimeout metav1.Duration `json:"drainTimeout,omitzero"`
	// Memory is what the process plans with, in bytes ("512Mi"): half of it bounds
	// what callers and agents that do not read can make it hold. Package server does
	// not limit the process; culvert-hub makes the garbage collector keep to it.
	// Default 512 MiB, least 32 MiB.
	Memory resource.Quantity `json:"memory,omitzero"`
	// MetricsListen serves /metrics, /healthz and /readyz in clear text to whoever
	// reaches it. Default: nothing does.
	MetricsListen string `json:"metricsListen,omitempty"`
	// Telemetry sends traces to a collector. Default: what the OTEL_* variables of
	// the environment say.
	Telemetry *Telemetry `json:"telemetry,omitempty"`
	// DebugListen serves what is under way and profiles of the process, on an address
	// of this machine alone. Default: nothing does.
	DebugListen string `json:"debugListen,omitempty"`

	// Listeners are open TCP listeners, such as those that systemd hands over, which
	// the hub takes over in the place of opening the same address itself; each of them
	// has to be one of the addresses above. Where another process keeps them open, no
	// connection is refused while the hub is restarted.
	Listeners []net.Listener `json:"-"`
	// Logger defaults to slog.Default.
	Logger *slog.Logger `json:"-"`
}

// TokenReview names the Kubernetes cluster that judges tokens.
type TokenReview struct {
	// Kubeconfig is a file with the hub's credentials for that cluster;
	// InCluster uses those of the pod. Exactly one of the two is set.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	InCluster  bool   `json:"inCluster,omitempty"`
	// Audiences are those that a token must be for. Default: the API server's
	// own.
	Audiences []string `json:"audiences,omitempty"`
}

func (c Config) withDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []string{DefaultListen}
	}
	if c.TrustDomain == "" {
		c.TrustDomain = DefaultTrustDomain
	}
	if c.Memory.IsZero() {
		c.Memory = *resource.NewQuantity(DefaultMemory, resource.BinarySI)
	}
	if c.DrainTimeout.Duration == 0 {
		c.DrainTimeout.Duration = DefaultDrainTimeout
	}
	if c.Name == "" {
		// A machine without a name has audit lines without one.
		c.Name, _ = os.Hostname()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names everything that is wrong, with the path of the field.
func (c *Config) Validate() error {
	var problems []error
	for _, a := range []struct {
		field  string
		values []string
	}{{"listen", c.Listen}, {"agentListen", c.AgentListen}} {
		for i, value := range a.values {
			if _, _, err := net.SplitHostPort(value); err != nil {
				problems = append(problems, fmt.Errorf("%s[%d]: want host:port or :port: %w", a.field, i, err))
			}
		}
	}
	if c.State == "" {
		problems = append(problems, errors.New("state: required: the folder that keeps the hub's CAs and its store"))
	}
	if _, err := c.hosts(); err != nil {
		problems = append(problems, prefixed("hosts", err)...)
	}
	if _, err := c.balancers(); err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, c.trustProblems()...)
	problems = append(problems, c.accessProblems()...)
	_, connectProblems := c.connectSettings()
	problems = append(problems, connectProblems...)
	if c.TrustDomain != "" {
		for _, reason := range validation.IsDNS1123Subdomain(c.TrustDomain) {
			problems = append(problems, fmt.Errorf("trustDomain: %q: %s", c.TrustDomain, reason))
		}
	}
	if !c.Memory.IsZero() && c.Memory.Value() < LeastMemory {
		problems = append(problems, fmt.Errorf("memory: %v is less than %v", &c.Memory, resource.NewQuantity(LeastMemory, resource.BinarySI)))
	}
	if c.DrainTimeout.Duration < 0 {
		problems = append(problems, fmt.Errorf("drainTimeout: %v is negative", c.DrainTimeout.Duration))
	}
	tokens := c.TokenFile != "" || c.TokenReview != nil || c.AuthenticationConfig != ""
	switch {
	case !tokens && (c.TLS == nil || c.TLS.ClientCA == ""):
		problems = append(problems, errors.New("tokenFile, tokenReview: give at least one, or authenticationConfig, or tls.clientCA: nobody could be authenticated without"))
	case !tokens:
		problems = append(problems, named(c.mappingProblem())...)
	default:
		problems = append(problems, named(c.identity().Validate())...)
	}
	return errors.Join(problems...)
}

// mappingProblem checks the rest of what says who may call, where only client
// certificates do: their CA is read later.
func (c *Config) mappingProblem() error {
	probe := c.identity()
	probe.TokenFile = "none"
	return probe.Validate()
}

// identity is the part of the configuration that says who may call, and as whom.
func (c *Config) identity() *identity.Config {
	out := &identity.Config{TokenFile: c.TokenFile, AuthenticationConfig: c.AuthenticationConfig, Prefix: c.IdentityPrefix}
	if r := c.TokenReview; r != nil {
		out.TokenReview = &identity.TokenReviewConfig{
			Kubeconfig: r.Kubeconfig, InCluster: r.InCluster, Audiences: r.Audiences,
		}
	}
	if p := c.PassThrough; p != nil {
		out.PassThrough = p.Clusters
	}
	if i := c.Identity; i != nil {
		out.Prefix = cmp.Or(i.Prefix, c.IdentityPrefix)
		out.UserRules, out.GroupRules, out.DeniedGroups = i.UserRules, i.GroupRules, i.DenyGroups
		if i.Extra != nil {
			out.CarryExtra, out.SetExtra = i.Extra.Carry, i.Extra.Set
		}
	}
	return out
}
