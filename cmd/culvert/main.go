// Command culvert is the tool for people: a hub and agent in one process for
// development, and certificates. Run it with --help for its commands.
package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/version"
)

func main() { cli.Main("culvert", run) }

func run(ctx context.Context, args []string) error {
	cmd := &cobra.Command{
		Use:           "culvert",
		Short:         "Reach clusters in private networks through a Culvert hub",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(devCommand(), tokenCommand(), clustersCommand(), kubeconfigCommand(), credentialCommand(), policyCommand(), pkiCommand(), manifestsCommand(), endpointsCommand(), versionCommand())
	cli.ExplainUsage(cmd)
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this build and of the tunnel protocol",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "culvert %s, tunnel protocol revision 1\n", version.String())
			return err
		},
	}
}
