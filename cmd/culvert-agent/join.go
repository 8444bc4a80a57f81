package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/enrol"
)

// maxTokenFile bounds the file of a join token, in bytes.
const maxTokenFile = 16 << 10

func joinCommand(cfg *agent.Config) *cobra.Command {
	var logging cli.Logging
	var join agent.JoinConfig
	var tokenFile string
	var enrolOnly bool
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Get a certificate from the hub, and run",
		Long: `Join makes a key, shows a join token to the hub, gets a certificate for the key and
keeps both in the state folder; then it runs as culvert-agent does, which renews
the certificate over the tunnel. The key never leaves this machine.

The token says where the hub is and which CA its certificate comes from, so that
nothing else is needed, and nobody in between can take the hub's place. It is good
for one use and one cluster. culvert token create at the hub makes one.

Where the state folder has a good certificate of that token's hub and cluster, join
just runs: a unit file or a pod may keep its command line. A new token for the same
cluster makes it join anew; the state of another hub or cluster is replaced with
--force only.

In the place of a token, a service account of Kubernetes can join: the hub has its
token reviewed, and has a rule for its audience, namespace and name.`,
		Example: `  # What culvert token create prints:
  culvert-agent join --token TOKEN

  # Outside of a cluster, without root, and with a token that no process list shows:
  culvert-agent join --token-file token --state ~/.culvert-agent --kubeconfig ~/.kube/config

  # The certificate alone, for a service that runs culvert-agent --state later:
  culvert-agent join --token TOKEN --enrol-only

  # In the place of an expired certificate, or of another hub's:
  culvert-agent join --force --token TOKEN

  # As a service account, whose token is mounted with an audience for the hub:
  culvert-agent join --service-account-token-file /var/run/secrets/culvert/token \
    --hub hub.example.com:443 --hub-ca ca.crt --cluster edge-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.Logger(os.Stderr)
			if err != nil {
				return err
			}
			cfg.Logger = log
			if tokenFile != "" {
				if join.Token != "" {
					return errors.New("--token, --token-file: give one of them")
				}
				if join.Token, err = readToken(cmd.InOrStdin(), tokenFile); err != nil {
					return err
				}
			}
			if err := agent.Join(cmd.Context(), *cfg, join); err != nil {
				return err
			}
			if enrolOnly {
				return nil
			}
			if join.ServiceAccountTokenFile != "" {
				cfg.HubCA = "" // it was for the first connection: the state has the hub's CAs, and keeps them current
			}
			return runAgent(cmd.Context(), *cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&join.Token, "token", "", "join token, made by culvert token create at the hub")
	f.StringVar(&tokenFile, "token-file", "", "file with the join token, or - for standard input")
	f.StringVar(&join.ServiceAccountTokenFile, "service-account-token-file", "", "file with a service account's token, in the place of a join token; needs --hub and --hub-ca")
	f.StringVar(&join.Cluster, "cluster", "", "cluster to join as, where the service account may be several (default: what the token is for)")
	f.BoolVar(&join.Force, "force", false, "replace what the state folder has")
	f.BoolVar(&enrolOnly, "enrol-only", false, "end once the certificate is in the state folder")
	f.DurationVar(&join.AcceptTimeout, "accept-timeout", enrol.DefaultAcceptTime, "how long to wait until the cluster is accepted at the hub, where it has to be")
	bind(f, cfg, &logging)
	return cmd
}

// readToken never has anything of the token in its errors.
func readToken(stdin io.Reader, path string) (string, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("--token-file: %s is empty", path)
	}
	return token, nil
}

// maxShown is the longest argument that an error repeats: tokens are longer.
const maxShown = 40

// noArgs is cobra.NoArgs, whose error does not show what may be a token that was
// pasted without its flag.
func noArgs(cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		if len(arg) > maxShown || strings.HasPrefix(arg, enrol.TokenPrefix) {
			return errors.New("an argument stands where none is wanted: a join token is given with --token")
		}
	}
	return cobra.NoArgs(cmd, args)
}
