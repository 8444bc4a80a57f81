// Command culvert-agent connects a private network to a hub. Run it with --help
// for its flags.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/version"
)

func main() { cli.Main("culvert-agent", run) }

func run(ctx context.Context, args []string) error {
	var cfg agent.Config
	if err := cli.LoadConfig(args, &cfg); err != nil {
		return err
	}
	cmd := command(&cfg)
	cli.ExplainUsage(cmd)
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

func command(cfg *agent.Config) *cobra.Command {
	var logging cli.Logging
	cmd := &cobra.Command{
		Use:   "culvert-agent",
		Short: "Connect a private network to a Culvert hub",
		Long: `The agent opens one outbound connection to the hub and needs no inbound one. It
reaches the API server of its cluster with its own credential, which never leaves
it, and acts as the user that the hub has authenticated. Services and addresses
beside the API server are reached only where a flag allows them.

Its certificate, which says whose cluster this is, comes from one of two places:
a state folder, which culvert-agent join makes and the agent then renews by itself
over its tunnel, or files that somebody else makes and renews. Files are followed;
SIGHUP reads all of them again at once.`,
		Example: `  # First with a token of the hub, in a pod with its service account:
  culvert-agent join --token TOKEN

  # Afterwards the state is enough:
  culvert-agent --state /var/lib/culvert-agent

  # With a certificate of cert-manager, mounted as a Secret:
  culvert-agent --hub hub.example.com:443 --cert-dir /etc/culvert/tls

  # With files, outside of a cluster, and one service beside the API server:
  culvert-agent --hub hub.example.com:443 --hub-ca ca.crt --cert tls.crt --key tls.key \
    --kubeconfig ~/.kube/config --context edge-1 --allow-service monitoring/prometheus:9090`,
		Args:          noArgs,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.Logger(os.Stderr)
			if err != nil {
				return err
			}
			cfg.Logger = log
			return runAgent(cmd.Context(), *cfg)
		},
	}
	bind(cmd.Flags(), cfg, &logging)
	cmd.AddCommand(joinCommand(cfg))
	return cmd
}

// bind adds the flags of an agent that runs.
func bind(f *pflag.FlagSet, cfg *agent.Config, logging *cli.Logging) {
	cli.ConfigFlag(f)
	f.StringVar(&cfg.State, "state", cfg.State, "folder of the agent's certificate, made by join (default "+agent.DefaultState+", unless a certificate is given)")
	f.StringVar(&cfg.Hub, "hub", cfg.Hub, "host:port of the hub (default: that of the state; required with a certificate)")
	f.StringVar(&cfg.HubCA, "hub-ca", cfg.HubCA, "PEM file of the CAs that verify the hub, or "+agent.SystemCA+" (default: those of the state, or ca.crt of --cert-dir)")
	f.StringVar(&cfg.HubName, "hub-name", cfg.HubName, "name in the hub's certificate (default: the host of --hub)")
	f.StringVar(&cfg.Cert, "cert", cfg.Cert, "PEM file of a certificate that somebody else renews, in the place of --state")
	f.StringVar(&cfg.Key, "key", cfg.Key, "PEM file of the key of --cert")
	f.StringVar(&cfg.CertDir, "cert-dir", cfg.CertDir, "folder with tls.crt, tls.key and ca.crt that somebody else renews, such as a mounted Secret")
	f.StringVar(&cfg.Proxy.URL, "proxy", cfg.Proxy.URL, "HTTP proxy to the hub, http[s]://[user:password@]host:port, or none (default: HTTPS_PROXY of the environment)")
	f.StringArrayVar(&cfg.Proxy.NoProxy, "no-proxy", cfg.Proxy.NoProxy, "host, domain, address or range that is reached without the proxy (repeat; default: NO_PROXY of the environment)")
	f.StringVar(&cfg.Proxy.CA, "proxy-ca", cfg.Proxy.CA, "PEM file of the CAs that verify an https proxy (default: the system's)")
	f.StringVar(&cfg.Proxy.CredentialsFile, "proxy-credentials-file", cfg.Proxy.CredentialsFile, "file with user:password for the proxy")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", cfg.Kubeconfig, "kubeconfig for the cluster's API server (default: the pod's service account)")
	f.StringVar(&cfg.Context, "context", cfg.Context, "context in the kubeconfig (default: its current one)")
	f.StringArrayVar(&cfg.KubernetesEndpoints, "kubernetes-endpoint", cfg.KubernetesEndpoints, "host:port of an API server, or of a name with several addresses, in the place of the kubeconfig's address (repeat)")
	f.Var(textValue[agent.Balance]{&cfg.KubernetesBalance}, "kubernetes-balance", "how an endpoint is chosen: leastoutstanding, roundrobin or random2 (default leastoutstanding)")
	f.Var(textValue[agent.ProbeKind]{&cfg.KubernetesProbe.Kind}, "kubernetes-probe", "how endpoints are asked whether they work: http, tls, tcp, grpc or none (default http)")
	f.StringArrayVar(&cfg.AllowServices, "allow-service", cfg.AllowServices, "service that may be reached, namespace/name[:port], each part may be * (repeat; default none)")
	f.StringArrayVar(&cfg.AllowAddresses, "allow-address", cfg.AllowAddresses, "TCP address that may be reached, host:port, the port may be * (repeat; default none)")
	f.StringVar(&cfg.Policy, "policy", cfg.Policy, "policy file of the cluster's owner, which may deny what the allow flags allow (default none)")
	f.BoolVar(&cfg.ReadOnly, "read-only", cfg.ReadOnly, "allow nothing but reading, whatever other rules say")
	f.StringArrayVar(&cfg.SpecialAddresses, "special-address", cfg.SpecialAddresses, "loopback, link-local or other special network that names of services may lead to (repeat; default none)")
	f.BoolVar(&cfg.PassThrough, "pass-through", cfg.PassThrough, "let callers use tokens of this cluster, where the hub lets them, too")
	f.StringVar(&cfg.Telemetry.OTLPEndpoint, "otlp-endpoint", cfg.Telemetry.OTLPEndpoint, "URL of a collector of traces, OTLP over HTTP (default: what OTEL_* of the environment say)")
	f.StringVar(&cfg.DebugListen, "debug-listen", cfg.DebugListen, "address of what is under way and of profiles, on this machine alone (default: nowhere)")
	f.StringVar(&cfg.ServiceCA, "service-ca", cfg.ServiceCA, "PEM file of the CAs that verify HTTPS services (default: the API server's CA)")
	f.StringVar(&cfg.DNSServer, "dns-server", cfg.DNSServer, "host:port of the resolver for targets (default: the system's)")
	f.StringVar(&cfg.Name, "name", cfg.Name, "what the hub's audit lines and logs call this agent (default: the machine's name)")
	f.StringToStringVar(&cfg.Labels, "label", cfg.Labels, "label that describes the agent, key=value (repeat)")
	f.DurationVar(&cfg.DrainTimeout.Duration, "drain-timeout", cfg.DrainTimeout.Duration, "how long sessions may go on at the end (default "+agent.DefaultDrainTimeout.String()+")")
	cli.MemoryFlag(f, &cfg.Memory, agent.DefaultMemory, agent.LeastMemory)
	f.StringVar(&cfg.MetricsListen, "metrics-listen", cfg.MetricsListen, "host:port of /metrics, /healthz and /readyz, in clear text and for everybody (default: nowhere)")
	logging.Bind(f)
}

// textValue is a flag for a type of text; what it may be is validated with the rest.
type textValue[T ~string] struct{ to *T }

// Set implements [pflag.Value].
func (v textValue[T]) Set(text string) error { *v.to = T(text); return nil }

// Type implements [pflag.Value].
func (v textValue[T]) Type() string { return "string" }

// String implements [pflag.Value].
func (v textValue[T]) String() string {
	if v.to == nil {
		return ""
	}
	return string(*v.to)
}

// runAgent runs an agent until ctx ends.
func runAgent(ctx context.Context, cfg agent.Config) error {
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	cli.LimitMemory(cfg.Memory, agent.DefaultMemory)
	return cli.WithReload(ctx, a.Reload, func(ctx context.Context) error {
		cli.Ready() // a hub that is away makes an agent wait and no failure
		return a.Run(ctx)
	})
}
