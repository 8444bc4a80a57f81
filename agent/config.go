package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/upstream"
)

// DefaultDrainTimeout is how long sessions may go on once the agent is told to
// end.
const DefaultDrainTimeout = 15 * time.Second

// Config sets up an agent. The JSON names are those of the configuration file;
// unknown ones are errors. It is copied by [New].
type Config struct {
	// Hub is the hub's host:port. Required.
	Hub string `json:"hub,omitempty"`
	// HubCA is a PEM file of the CAs that the hub's certificate comes from, read
	// again when it changes. Required.
	HubCA string `json:"hubCA,omitempty"`
	// HubName is the name in the hub's certificate where it is not the host of
	// Hub.
	HubName string `json:"hubName,omitempty"`
	// Cert and Key are PEM files of the agent's certificate, which says whose
	// cluster this is; read again when they change. Required.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// Kubeconfig and Context are the credentials for the cluster's API server.
	// Default: the service account of the pod.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	// AllowServices are the services that may be reached beside the API server,
	// as namespace/name[:port] where each part may be "*". Default none.
	AllowServices []string `json:"allowServices,omitempty"`
	// AllowAddresses are the TCP addresses that may be reached, as host:port
	// where the port may be "*". Default none.
	AllowAddresses []string `json:"allowAddresses,omitempty"`
	// ServiceCA is a PEM file of the CAs that HTTPS services' certificates come
	// from. Default: the CA of the API server.
	ServiceCA string `json:"serviceCA,omitempty"`
	// DNSServer is the host:port of a resolver for names of targets. Default the
	// system's.
	DNSServer string `json:"dnsServer,omitempty"`
	// Labels describe the agent to people at the hub.
	Labels map[string]string `json:"labels,omitempty"`
	// DrainTimeout is how long sessions may go on once the agent is told to end.
	// Default 15 s.
	DrainTimeout metav1.Duration `json:"drainTimeout,omitzero"`

	// Kubernetes takes the place of Kubeconfig and Context in programs that
	// embed an agent.
	Kubernetes *rest.Config `json:"-"`
	// Logger defaults to slog.Default.
	Logger *slog.Logger `json:"-"`
}

func (c Config) withDefaults() Config {
	if c.DrainTimeout.Duration == 0 {
		c.DrainTimeout.Duration = DefaultDrainTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names everything that is wrong, with the path of the field.
func (c *Config) Validate() error {
	var problems []error
	for _, f := range []struct{ field, value, what string }{
		{"hub", c.Hub, "the hub's host:port"},
		{"hubCA", c.HubCA, "a PEM file that verifies the hub"},
		{"cert", c.Cert, "the PEM file of the agent's certificate"},
		{"key", c.Key, "the PEM file of the agent's key"},
	} {
		if f.value == "" {
			problems = append(problems, fmt.Errorf("%s: required: %s", f.field, f.what))
		}
	}
	if c.Hub != "" {
		if _, err := route.ParseAddress(c.Hub); err != nil {
			problems = append(problems, fmt.Errorf("hub: want host:port, without a scheme: %w", err))
		}
	}
	if c.Kubernetes != nil && (c.Kubeconfig != "" || c.Context != "") {
		problems = append(problems, errors.New("kubeconfig, context: not together with credentials given by the program"))
	}
	if c.DrainTimeout.Duration < 0 {
		problems = append(problems, fmt.Errorf("drainTimeout: %v is negative", c.DrainTimeout.Duration))
	}
	if _, _, err := c.rules(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
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
