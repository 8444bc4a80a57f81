package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/front/admin"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the join tokens of agents",
		Example: `  culvert token create --state /var/lib/culvert --cluster edge-1
  culvert token list --state /var/lib/culvert`,
	}
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenRevokeCommand())
	return cmd
}

func tokenCreateCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var want admin.TokenRequest
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token with which one agent joins the hub as one cluster",
		Long: `Make a token with which one agent joins the hub as one cluster, and print the
command to run there: one line on standard output, and nothing else on it.

The token is good for one use and for that cluster alone, until it expires. It
holds the hub's address and the fingerprint of its CA, so that the agent needs
nothing else, and it is a secret: who has it first is that cluster.`,
		Example: `  culvert token create --state /var/lib/culvert --cluster edge-1
  culvert token create --state /var/lib/culvert --cluster edge-1 --ttl 15m --label region=north
  culvert token create --state /var/lib/culvert --cluster edge-1 | ssh edge-1 sh
  culvert token create --hub https://hub.example.com:8443 --token-file me.token --cluster edge-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			want.TTL = metav1.Duration{Duration: ttl}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				made, err := c.CreateToken(ctx, want)
				if err != nil {
					return err
				}
				return printToken(cmd, out, made)
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&want.Cluster, "cluster", "", "name of the cluster that may join, a DNS-1123 label (required)")
	f.DurationVar(&ttl, "ttl", 0, "how long the token may be used (default 1h)")
	f.StringToStringVar(&want.Labels, "label", nil, "key=value for the cluster (repeat; default none)")
	f.StringVar(&want.Approval, "approval", "", "auto, or manual to wait for culvert clusters accept (default: the hub's setting)")
	f.StringVar(&want.Hub, "advertise", "", "host:port at which the agent reaches the hub (default: the hub's setting)")
	completeWords(cmd, "approval", admin.ApprovalAuto, admin.ApprovalManual)
	completeClusterFlag(cmd)
	required(cmd, "cluster")
	return cmd
}

// printToken keeps standard output to what is pasted or piped on.
func printToken(cmd *cobra.Command, out outputFlag, made admin.NewToken) error {
	say := cmd.ErrOrStderr()
	for _, warning := range made.Warnings {
		fmt.Fprintf(say, "warning: %s\n", printable(warning))
	}
	err := out.print(cmd.OutOrStdout(), made, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, printable(made.Command)) // one line, whatever the hub says: it is for a shell
		return err
	})
	if err != nil || !out.people() {
		return err
	}
	fmt.Fprintf(say, "Run that where the agent of %s will be. It is good once, until %s, and then not again.\n", printable(made.Cluster), when(made.Expires))
	if made.Approval == admin.ApprovalManual {
		fmt.Fprintf(say, "The agent then waits until you accept it: culvert clusters accept %s\n", printable(made.Cluster))
	}
	fmt.Fprintf(say, "To take it back: culvert token revoke %s\n", printable(made.ID))
	return nil
}

func tokenListCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the join tokens, which are kept for a while after their use",
		Example: "  culvert token list --state /var/lib/culvert\n  culvert token list --state /var/lib/culvert -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				tokens, err := c.ListTokens(ctx)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), admin.List[admin.Token]{Items: tokens}, func(w io.Writer) error {
					return tokenTable(w, tokens)
				})
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	return cmd
}

func tokenTable(w io.Writer, tokens []admin.Token) error {
	lines := make([][]string, 0, len(tokens))
	for _, t := range tokens {
		by := t.UsedBy
		if t.State == admin.TokenRevoked {
			by = t.RevokedBy
		}
		lines = append(lines, []string{t.ID, t.Cluster, t.State, t.Approval, until(t.Expires), by, labelText(t.Labels)})
	}
	return rows(w, []string{"ID", "CLUSTER", "STATE", "APPROVAL", "EXPIRES", "BY", "LABELS"}, lines)
}

func tokenRevokeCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Take a join token back, so that nobody joins with it",
		Long: `Take a join token back, so that nobody joins with it. An agent that has joined
with it stays: culvert clusters revoke is for that.`,
		Example: "  culvert token revoke --state /var/lib/culvert 3f6c0a9d2b1e4f57",
		Args:    oneName("token's id, as culvert token list shows it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				token, err := c.RevokeToken(ctx, args[0])
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), token, func(w io.Writer) error {
					return tokenTable(w, []admin.Token{token})
				})
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	return cmd
}
