// Command culvert is the tool for people: logins, clusters, kubeconfigs, the
// administration of hubs, and a hub and agent in one process for development. Run it
// with --help for its commands. As kubectl-culvert it is a plugin of kubectl.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

func main() { cli.MainWithCodes(calledAs(os.Args[0]).name, run, explain) }

func run(ctx context.Context, args []string) error {
	as := calledAs(os.Args[0])
	cmd := root(as)
	if as.completes {
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

// root is the command with all that is below it.
func root(as invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "culvert",
		Short: "Reach clusters in private networks through a Culvert hub",
		Long: `Reach clusters in private networks through a Culvert hub.

culvert login keeps a hub and who you are as a profile; the other commands then need no
flag for that. A flag wins over the environment (CULVERT_HUB and the like), and that over
the profile. culvert help exit-codes has what scripts can rely on.`,
		Example: `  culvert login https://hub.example.com:8443 --token-file me.token
  culvert clusters list
  culvert kubeconfig edge-1 --merge`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: as.name},
	}
	cmd.AddCommand(loginCommand(), logoutCommand(), whoamiCommand(), profilesCommand(), clustersCommand(), kubeconfigCommand(), credentialCommand(),
		forwardCommand(), connectCommand(), socksCommand(), pingCommand(), verifyCommand(), benchCommand(),
		devCommand(), tokenCommand(), policyCommand(), pkiCommand(), manifestsCommand(), endpointsCommand(), versionCommand())
	cmd.InitDefaultHelpCmd()
	if help, _, err := cmd.Find([]string{"help"}); err == nil {
		help.Args = knownCommand
	}
	cli.ExplainUsage(cmd)
	cmd.AddCommand(exitCodesTopic()) // a page of help has no usage
	return cmd
}

// knownCommand refuses help about what is no command.
func knownCommand(help *cobra.Command, args []string) error {
	_, rest, err := help.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("no command is called %q", strings.Join(args, " "))
	}
	return err
}

// invocation is how the program was called.
type invocation struct {
	name string
	// completes is for the program by which kubectl completes the arguments of a plugin.
	completes bool
}

// calledAs reads the program's name: kubectl runs the commands of a plugin as
// kubectl-culvert, and completes them by kubectl_complete-culvert
// (https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/).
func calledAs(path string) invocation {
	switch strings.TrimSuffix(filepath.Base(path), ".exe") {
	case "kubectl-culvert":
		return invocation{name: "kubectl culvert"}
	case "kubectl_complete-culvert":
		return invocation{name: "kubectl culvert", completes: true}
	}
	return invocation{name: "culvert"}
}

// versionResult is what culvert version prints.
type versionResult struct {
	Version string `json:"version"`
	// OldestRevision and Revision are of the tunnel protocol.
	OldestRevision int `json:"oldestRevision"`
	Revision       int `json:"revision"`
}

func versionCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this build and the revisions of the tunnel protocol that it speaks",
		Example: "  culvert version\n  culvert version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			v := versionResult{Version: version.String(), OldestRevision: wire.OldestRevision, Revision: wire.Revision}
			return out.print(cmd.OutOrStdout(), v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "culvert %s, tunnel protocol revisions %d to %d\n", v.Version, v.OldestRevision, v.Revision)
				return err
			})
		},
	}
	out.bind(cmd)
	return cmd
}
