// Command culvert-hub serves clusters that agents connect to it. Run it with
// --help for its flags.
package main

import (
	"context"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/server"
)

func main() { cli.Main("culvert-hub", run) }

func run(ctx context.Context, args []string) error {
	var cfg server.Config
	if err := cli.LoadConfig(args, &cfg); err != nil {
		return err
	}
	cmd := command(&cfg)
	cli.ExplainUsage(cmd)
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

func command(cfg *server.Config) *cobra.Command {
	var logging cli.Logging
	review := cfg.TokenReview
	if review == nil {
		review = &server.TokenReview{}
	}
	extra := newBlocks(cfg)
	cmd := &cobra.Command{
		Use:   "culvert-hub",
		Short: "Serve clusters in private networks at https://hub/<cluster>/<api-path>",
		Long: `The hub accepts tunnels from agents and HTTPS requests from clients on one port.
A request to /<cluster>/<api-path> is authenticated here and answered by that
cluster's own API server, as the caller and by the cluster's own RBAC.

A policy file says who may do what; without one, callers reach the Kubernetes API
of every cluster, and nothing else.

SIGHUP makes it read certificates, keys, CAs, the policy and who may call at once;
without it they are read when they change. SIGTERM and SIGINT end it in order.`,
		Example: `  # Static tokens, certificates issued by the hub itself:
  culvert-hub --state /var/lib/culvert --tls-name hub.example.com --token-file tokens.csv

  # Then, for each cluster, on the same machine:
  culvert token create --state /var/lib/culvert --cluster edge-1

  # Tokens of the management cluster that the hub runs in:
  culvert-hub --state /var/lib/culvert --token-review-in-cluster`,
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
			if cfg.Listeners, err = handedOver(); err != nil {
				return err
			}
			extra.apply(cfg)
			if review.Kubeconfig != "" || review.InCluster || len(review.Audiences) > 0 {
				cfg.TokenReview = review
			}
			// A SIGHUP before the hub runs has nothing to do: it has just read all.
			var running atomic.Pointer[server.Server]
			reload := func() error {
				if hub := running.Load(); hub != nil {
					return hub.Reload()
				}
				return nil
			}
			cli.LimitMemory(cfg.Memory, server.DefaultMemory)
			return cli.WithReload(cmd.Context(), reload, func(ctx context.Context) error {
				hub, err := server.New(ctx, *cfg)
				if err != nil {
					return err
				}
				running.Store(hub)
				cli.Ready() // it listens
				return hub.Run(ctx)
			})
		},
	}
	f := cmd.Flags()
	cli.ConfigFlag(f)
	f.StringArrayVar(&cfg.Listen, "listen", cfg.Listen, "address for clients and agents (repeat; default \""+server.DefaultListen+"\")")
	f.StringArrayVar(&cfg.AgentListen, "agent-listen", cfg.AgentListen, "address for agents only (repeat; default none)")
	f.StringVar(&cfg.State, "state", cfg.State, "folder of the hub's CAs and store, created at first start (required)")
	f.StringVar(&cfg.Advertise, "advertise", cfg.Advertise, "host:port at which agents reach the hub, for join tokens (default: from --tls-name and --listen)")
	f.StringVar(&cfg.TLSCert, "tls-cert", cfg.TLSCert, "file of the serving certificate, PEM or base64 of PEM (default: one issued by the hub's own CA)")
	f.StringVar(&cfg.TLSKey, "tls-key", cfg.TLSKey, "file of the serving certificate's key (default: in --tls-cert)")
	f.StringArrayVar(&cfg.TLSNames, "tls-name", cfg.TLSNames, "name or IP address for the certificate that the hub issues itself (repeat; default localhost, 127.0.0.1, ::1)")
	f.StringVar(&cfg.AgentCA, "agent-ca", cfg.AgentCA, "PEM file of the CAs of agents' certificates (default: the agents CA of the state folder)")
	f.StringVar(&cfg.TrustDomain, "trust-domain", cfg.TrustDomain, "trust domain of agents' SPIFFE ids (default \""+server.DefaultTrustDomain+"\")")
	f.StringVar(&cfg.TokenFile, "token-file", cfg.TokenFile, "CSV file of static tokens: token,user,uid,\"group1,group2\"")
	f.StringVar(&cfg.AuthenticationConfig, "authentication-config", cfg.AuthenticationConfig, "AuthenticationConfiguration file of OIDC issuers, as kube-apiserver has it (default none)")
	f.StringVar(&review.Kubeconfig, "token-review-kubeconfig", review.Kubeconfig, "kubeconfig of the cluster that judges tokens by TokenReview")
	f.BoolVar(&review.InCluster, "token-review-in-cluster", review.InCluster, "judge tokens by TokenReview of the cluster that the hub runs in")
	f.StringArrayVar(&review.Audiences, "token-review-audience", review.Audiences, "audience that tokens must be for (repeat; default: the API server's own)")
	f.StringVar(&cfg.IdentityPrefix, "identity-prefix", cfg.IdentityPrefix, "what marks users and groups of the hub on managed clusters (default \""+server.DefaultIdentityPrefix+"\")")
	f.DurationVar(&cfg.DrainTimeout.Duration, "drain-timeout", cfg.DrainTimeout.Duration, "how long requests and sessions may go on at the end (default "+server.DefaultDrainTimeout.String()+")")
	cli.MemoryFlag(f, &cfg.Memory, server.DefaultMemory, server.LeastMemory)
	f.StringVar(&cfg.Name, "name", cfg.Name, "the hub's name in audit lines and traces (default: the machine's)")
	f.StringVar(&cfg.DebugListen, "debug-listen", cfg.DebugListen, "address of what is under way and of profiles, on this machine alone (default none)")
	f.StringVar(&cfg.MetricsListen, "metrics-listen", cfg.MetricsListen, "address of /metrics, /healthz and /readyz, in clear text and for anybody (default none)")
	extra.bind(f)
	logging.Bind(f)
	return cmd
}
