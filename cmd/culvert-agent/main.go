// Command culvert-agent connects a private network to a hub. Run it with --help
// for its flags.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

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
beside the API server are reached only where a flag allows them.`,
		Example: `  # In a pod, with its service account:
  culvert-agent --hub hub.example.com:443 --hub-ca ca.crt --cert tls.crt --key tls.key

  # Outside of a cluster, and one service beside the API server:
  culvert-agent --hub hub.example.com:443 --hub-ca ca.crt --cert tls.crt --key tls.key \
    --kubeconfig ~/.kube/config --context edge-1 --allow-service monitoring/prometheus:9090`,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.Logger(os.Stderr)
			if err != nil {
				return err
			}
			cfg.Logger = log
			a, err := agent.New(*cfg)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	cli.ConfigFlag(f)
	f.StringVar(&cfg.Hub, "hub", cfg.Hub, "host:port of the hub (required)")
	f.StringVar(&cfg.HubCA, "hub-ca", cfg.HubCA, "PEM file of the CAs that verify the hub (required)")
	f.StringVar(&cfg.HubName, "hub-name", cfg.HubName, "name in the hub's certificate (default: the host of --hub)")
	f.StringVar(&cfg.Cert, "cert", cfg.Cert, "PEM file of the agent's certificate, which says whose cluster this is (required)")
	f.StringVar(&cfg.Key, "key", cfg.Key, "PEM file of the agent's key (required)")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", cfg.Kubeconfig, "kubeconfig for the cluster's API server (default: the pod's service account)")
	f.StringVar(&cfg.Context, "context", cfg.Context, "context in the kubeconfig (default: its current one)")
	f.StringArrayVar(&cfg.AllowServices, "allow-service", cfg.AllowServices, "service that may be reached, namespace/name[:port], each part may be * (repeat; default none)")
	f.StringArrayVar(&cfg.AllowAddresses, "allow-address", cfg.AllowAddresses, "TCP address that may be reached, host:port, the port may be * (repeat; default none)")
	f.StringVar(&cfg.ServiceCA, "service-ca", cfg.ServiceCA, "PEM file of the CAs that verify HTTPS services (default: the API server's CA)")
	f.StringVar(&cfg.DNSServer, "dns-server", cfg.DNSServer, "host:port of the resolver for targets (default: the system's)")
	f.StringToStringVar(&cfg.Labels, "label", cfg.Labels, "label that describes the agent, key=value (repeat)")
	f.DurationVar(&cfg.DrainTimeout.Duration, "drain-timeout", cfg.DrainTimeout.Duration, "how long sessions may go on at the end (default "+agent.DefaultDrainTimeout.String()+")")
	logging.Bind(f)
	return cmd
}
