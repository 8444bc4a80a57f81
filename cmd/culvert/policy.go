package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policies, explain their decisions, and import an allow-list",
		Example: `  culvert policy check --policy policy.yaml
  culvert policy test --policy policy.yaml --user alice --cluster edge-1 --path /api/v1/pods`,
	}
	cmd.AddCommand(policyCheckCommand(), policyTestCommand(), policyImportCommand())
	return cmd
}

// policyFlags name a policy.
type policyFlags struct {
	file  string
	agent bool
}

func (p *policyFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "policy", "", "the policy's file (required)")
	cmd.Flags().BoolVar(&p.agent, "agent", false, "read it as an agent does, which knows no clusters and no impersonation")
	required(cmd, "policy")
}

func (p *policyFlags) load() (*policy.Policy, error) {
	text, err := readInput("--policy", p.file, nil)
	if err != nil {
		return nil, err
	}
	loaded, err := policy.Parse(text, policy.Options{Agent: p.agent})
	if err != nil {
		return nil, fmt.Errorf("--policy %s: %w", p.file, err)
	}
	return loaded, nil
}

// maxInput bounds what is read from a file; what is above it is refused by whoever
// parses it.
const maxInput = 2 << 20

// readInput reads a file, or stdin for "-" where there is one.
func readInput(flag, path string, stdin io.Reader) ([]byte, error) {
	if path == "-" && stdin != nil {
		return io.ReadAll(io.LimitReader(stdin, maxInput))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxInput))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return text, nil
}

func policyCheckCommand() *cobra.Command {
	var from policyFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a policy as the hub, or an agent, does when it reads it",
		Long: `Check a policy as the hub, or an agent, does when it reads it. What is wrong is
told with the line and path of each field, and the exit code is then 1.`,
		Example: "  culvert policy check --policy policy.yaml\n  culvert policy check --policy agent-policy.yaml --agent",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := from.load()
			if err != nil {
				return err
			}
			d := loaded.Document()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "good: %d rules, default %s\n", len(d.Rules), d.Default)
			return err
		},
	}
	from.bind(cmd)
	return cmd
}

func policyImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import-ocm FILE",
		Short: "Print the policy for Open Cluster Management's list of exposed services",
		Long: `Print the policy for the services that Open Cluster Management's cluster-proxy
exposes. FILE is the manifest of the ConfigMap ` + policy.OCMConfigMap + `,
or the list in it; - is standard input. The policy is good for agents and for the
hub.`,
		Example: `  culvert policy import-ocm exposed-services.yaml > policy.yaml
  kubectl get configmap ` + policy.OCMConfigMap + ` -n open-cluster-management-addon -o yaml | culvert policy import-ocm -`,
		Args:              oneName("file, or - for standard input"),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput("FILE", args[0], interruptible(cmd.Context(), cmd.InOrStdin()))
			if err != nil {
				return err
			}
			document, err := policy.ImportOCM(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			out, err := document.YAML()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	}
}
