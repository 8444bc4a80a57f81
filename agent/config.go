package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/balance"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/upstream"
)

// The types of parts of [Config] that other rooms define. Programs that embed an
// agent use these names.
type (
	// Impersonation says whom the agent acts for at the API server.
	Impersonation = upstream.Impersonation
	// Balance is how one of several endpoints is chosen: "leastoutstanding",
	// "roundrobin" or "random2".
	Balance = balance.Method
	// Probe says how endpoints are asked whether they work.
	Probe = upstream.Probe
	// ProbeKind is the way: "http", "tls", "tcp", "grpc" or "none".
	ProbeKind = upstream.ProbeKind
	// Telemetry says where traces go.
	Telemetry = telemetry.Settings
)

// DefaultDrainTimeout is how long sessions may go on once the agent is told to
// end.
const DefaultDrainTimeout = 15 * time.Second

// DefaultMemory and LeastMemory are of Config.Memory, in bytes.
const (
	DefaultMemory = 256 << 20
	LeastMemory   = 32 << 20
)

// Config sets up an agent. The JSON names are those of the configuration file;
// unknown ones are errors. It is copied by [New].
type Config struct {
	// State is the folder of what [Join] got from the hub: certificate, key, the
	// hub's address and CAs. The agent renews them there. Default [DefaultState],
	// unless a certificate is given.
	State string `json:"state,omitempty"`
	// StateSecret takes the place of State: a Secret of the cluster whose API server
	// the agent reaches, which all agents of a Deployment share.
	StateSecret *StateSecret `json:"stateSecret,omitempty"`
	// Hub is the hub's host:port. Default that of State; required with a
	// certificate.
	Hub string `json:"hub,omitempty"`
	// HubCA is a PEM file of the CAs that the hub's certificate comes from, read
	// again when it changes, or [SystemCA]. Default those of State, which follow the
	// hub's, or ca.crt of CertDir; required with Cert.
	HubCA string `json:"hubCA,omitempty"`
	// HubName is the name in the hub's certificate where it is not the host of
	// Hub.
	HubName string `json:"hubName,omitempty"`
	// Cert and Key are PEM files of a certificate which somebody else makes and
	// renews, in the place of State. It says whose cluster this is. Read again when
	// they change.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// CertDir is a folder with tls.crt, tls.key and ca.crt, as cert-manager and
	// Secrets of Kubernetes have them. It stands for Cert, Key and HubCA.
	CertDir string `json:"certDir,omitempty"`
	// Proxy leads to the hub. Default: what HTTPS_PROXY and NO_PROXY of the
	// environment say.
	Proxy outbound.Config `json:"proxy,omitzero"`
	// Kubeconfig and Context are the credentials for the cluster's API server.
	// Default: the service account of the pod.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	// KubernetesEndpoints are host:port of API servers of the cluster, in the place of
	// the address in the kubeconfig: requests are spread over those that work. A name
	// stands for all of its addresses. What the certificate has to be for, and by
	// which CA, stays as the kubeconfig says. Default: the address of the kubeconfig.
	KubernetesEndpoints []string `json:"kubernetesEndpoints,omitempty"`
	// KubernetesBalance says how one of them is chosen. Default "leastoutstanding":
	// that with the fewest requests and sessions under way.
	KubernetesBalance Balance `json:"kubernetesBalance,omitempty"`
	// KubernetesProbe says how each of them is asked whether it works; also where there
	// is one, so that callers are told at once that it does not. Default: GET /readyz
	// with the agent's credential, each 10 s.
	KubernetesProbe Probe `json:"kubernetesProbe,omitzero"`
	// AllowServices are the services that may be reached beside the API server,
	// as namespace/name[:port] where each part may be "*". Default none.
	AllowServices []string `json:"allowServices,omitempty"`
	// AllowAddresses are the TCP addresses that may be reached, as host:port
	// where the port may be "*". Default none.
	AllowAddresses []string `json:"allowAddresses,omitempty"`
	// Policy is a file with the policy of the cluster's owner, in the hub's format
	// without clusters and impersonation, read again when it changes. What it denies
	// no allow list allows. Default: the Kubernetes API, and what the lists have.
	Policy string `json:"policy,omitempty"`
	// SpecialAddresses are networks or addresses on loopback, link-local, of cloud
	// metadata and the like that names of services may lead to. Default none.
	SpecialAddresses []string `json:"specialAddresses,omitempty"`
	// ReadOnly allows nothing but reading, whatever other rules say.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Impersonation is whom the agent acts for at the API server. Default: names that
	// begin with the hub's default prefix.
	Impersonation Impersonation `json:"impersonation,omitzero"`
	// PassThrough lets callers use tokens of this cluster through the hub, where the
	// hub allows that, too. Default no.
	PassThrough bool `json:"passThrough,omitempty"`
	// ServiceCA is a PEM file of the CAs that HTTPS services' certificates come
	// from. Default: the CA of the API server.
	ServiceCA string `json:"serviceCA,omitempty"`
	// DNSServer is the host:port of a resolver for names of targets. Default the
	// system's.
	DNSServer string `json:"dnsServer,omitempty"`
	// Name is what the hub's audit lines and logs call this agent, so that a
	// cluster's agents can be told apart: at most 200 bytes of printable characters.
	// Default the machine's name, which in a pod is the pod's.
	Name string `json:"name,omitempty"`
	// Labels describe the agent to people at the hub.
	Labels map[string]string `json:"labels,omitempty"`
	// DrainTimeout is how long sessions may go on once the agent is told to end.
	// Default 15 s.
	DrainTimeout metav1.Duration `json:"drainTimeout,omitzero"`
	// Memory is what the process plans with, in bytes ("256Mi"): half of it bounds
	// what targets that do not read can make it hold. Package agent does not limit
	// the process; culvert-agent makes the garbage collector keep to it. Default
	// 256 MiB, least 32 MiB.
	Memory resource.Quantity `json:"memory,omitzero"`
	// MetricsListen serves /metrics, /healthz and /readyz in clear text to whoever
	// reaches this host:port or :port. Default nowhere.
	MetricsListen string `json:"metricsListen,omitempty"`
	// Telemetry sends traces to a collector. Default: what the OTEL_* variables of
	// the environment say.
	Telemetry Telemetry `json:"telemetry,omitzero"`
	// DebugListen serves what is under way and profiles of the process, on an address
	// of this machine alone. Default: nothing does.
	DebugListen string `json:"debugListen,omitempty"`

	// Kubernetes takes the place of Kubeconfig and Context in programs that
	// embed an agent.
	Kubernetes *rest.Config `json:"-"`
	// Logger defaults to slog.Default.
	Logger *slog.Logger `json:"-"`
}

func (c Config) withDefaults() Config {
	if c.Memory.IsZero() {
		c.Memory = *resource.NewQuantity(DefaultMemory, resource.BinarySI)
	}
	if c.DrainTimeout.Duration == 0 {
		c.DrainTimeout.Duration = DefaultDrainTimeout
	}
	if c.State == "" && c.StateSecret == nil && !c.operator() {
		c.State = DefaultState
	}
	if c.Name == "" {
		// Without it the hub calls the agent by its instance.
		c.Name, _ = os.Hostname()
	}
	if c.KubernetesProbe.Kind == "" {
		c.KubernetesProbe.Kind = upstream.ProbeHTTP
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// maxName bounds Config.Name, in bytes.
const maxName = 200

// nameProblem tells what is wrong with a name that is to be read in logs.
func nameProblem(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("name: is longer than %d bytes", maxName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name: %.64q has what cannot be printed", name)
		}
	}
	return nil
}

// operator tells that somebody else makes the certificate.
func (c *Config) operator() bool { return c.Cert != "" || c.Key != "" || c.CertDir != "" }

// Validate names everything that is wrong, with the path of the field.
func (c *Config) Validate() error {
	problems := append(c.trustProblems(), c.stateSecretProblems()...)
	if c.Hub != "" {
		if _, err := route.ParseAddress(c.Hub); err != nil {
			problems = append(problems, fmt.Errorf("hub: want host:port, without a scheme: %w", err))
		}
	}
	if err := nameProblem(c.Name); err != nil {
		problems = append(problems, err)
	}
	if c.Kubernetes != nil && (c.Kubeconfig != "" || c.Context != "") {
		problems = append(problems, errors.New("kubeconfig, context: not together with credentials given by the program"))
	}
	if !c.Memory.IsZero() && c.Memory.Value() < LeastMemory {
		problems = append(problems, fmt.Errorf("memory: %v is less than %v", &c.Memory, resource.NewQuantity(LeastMemory, resource.BinarySI)))
	}
	if c.DrainTimeout.Duration < 0 {
		problems = append(problems, fmt.Errorf("drainTimeout: %v is negative", c.DrainTimeout.Duration))
	}
	if err := c.Proxy.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("proxy: %w", err))
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			problems = append(problems, fmt.Errorf("metricsListen: want host:port or :port: %w", err))
		}
	}
	if _, _, err := c.rules(); err != nil {
		problems = append(problems, err)
	}
	if _, err := c.specialAddresses(); err != nil {
		problems = append(problems, err)
	}
	if err := balance.CheckEndpoints(c.KubernetesEndpoints); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesEndpoints: %w", err))
	}
	if err := balance.CheckMethod(c.KubernetesBalance); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesBalance: %w", err))
	}
	if err := c.KubernetesProbe.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("kubernetesProbe: %w", err))
	}
	if err := c.Impersonation.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("impersonation: %w", err))
	}
	if err := c.Telemetry.Validate(); err != nil {
		problems = append(problems, err)
	}
	if c.DebugListen != "" {
		if _, _, err := net.SplitHostPort(c.DebugListen); err != nil {
			problems = append(problems, fmt.Errorf("debugListen: want host:port of this machine alone: %w", err))
		}
	}
	return errors.Join(problems...)
}

// trustProblems judges what says who the agent is, and whom it believes.
func (c *Config) trustProblems() []error {
	if !c.operator() {
		return nil // the state has what is not given
	}
	var problems []error
	if c.State != "" {
		problems = append(problems, errors.New("state, cert, key, certDir: the certificate is either one of a state folder that the agent has joined from, or one that somebody else renews"))
	}
	required := []struct{ field, value, what string }{{"hub", c.Hub, "the hub's host:port"}}
	if c.CertDir == "" {
		required = append(required, []struct{ field, value, what string }{
			{"hubCA", c.HubCA, `a PEM file that verifies the hub, or "` + SystemCA + `"`},
			{"cert", c.Cert, "the PEM file of the agent's certificate"},
			{"key", c.Key, "the PEM file of the agent's key"},
		}...)
	} else if c.Cert != "" || c.Key != "" {
		problems = append(problems, errors.New("cert, key, certDir: give two files or a folder"))
	}
	for _, f := range required {
		if f.value == "" {
			problems = append(problems, fmt.Errorf("%s: required: %s", f.field, f.what))
		}
	}
	return problems
}

// specialAddresses parses the networks and addresses.
func (c *Config) specialAddresses() ([]netip.Prefix, error) {
	var problems []error
	var all []netip.Prefix
	for i, text := range c.SpecialAddresses {
		network, err := route.ParseNetwork(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("specialAddresses[%d]: %w", i, err))
			continue
		}
		all = append(all, network)
	}
	return all, errors.Join(problems...)
}

// rules parses the allow lists.
func (c *Config) rules() ([]upstream.ServiceRule, []upstream.AddressRule, error) {
	var problems []error
	var services []upstream.ServiceRule
	for i, s := range c.AllowServices {
		r, err := upstream.ParseServiceRule(s)
		if err != nil {
			problems = append(problems, fmt.Errorf("allowServices[%d]: %w", i, err))
		}
		services = append(services, r)
	}
	var addresses []upstream.AddressRule
	for i, s := range c.AllowAddresses {
		r, err := upstream.ParseAddressRule(s)
		if err != nil {
			problems = append(problems, fmt.Errorf("allowAddresses[%d]: %w", i, err))
		}
		addresses = append(addresses, r)
	}
	return services, addresses, errors.Join(problems...)
}
