package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/front/admin"
)

func clustersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clusters",
		Short: "List and watch the clusters that you may reach, and administer those of a hub",
		Long: `List and watch the clusters that you may reach, and administer those of a hub.

list, get and watch show what you may reach. With --admin, list and get show the hub's
own records instead: all clusters that have joined, wait to be accepted or are revoked,
with their certificates. accept, set and revoke change them. All of these are for the
hub's admins or, with --state, for who runs the hub on this machine.`,
		Example: `  culvert clusters list
  culvert clusters watch
  culvert clusters list --admin
  culvert clusters revoke --state /var/lib/culvert edge-1 --reason "laptop stolen"`,
	}
	cmd.AddCommand(clustersListCommand(), clustersGetCommand(), clustersWatchCommand(), clustersAcceptCommand(), clustersSetCommand(), clustersRevokeCommand(), clustersRestoreCommand())
	return cmd
}

// bindAdmin adds the flag for the hub's own records.
func bindAdmin(cmd *cobra.Command, admin *bool) {
	cmd.Flags().BoolVar(admin, "admin", false, "show the hub's own records, for its admins; --state means that too")
}

func clustersListCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var records bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the clusters that you may reach or, with --admin, all that the hub knows",
		Example: `  culvert clusters list
  culvert clusters list -o wide
  culvert clusters list --admin
  culvert clusters list --state /var/lib/culvert`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !records && hub.state == "" {
				return listReachable(cmd, &hub.caller, &out)
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				clusters, err := c.ListClusters(ctx)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), admin.List[admin.Cluster]{Items: clusters}, func(w io.Writer) error {
					return clusterTable(w, clusters)
				})
			})
		},
	}
	hub.bind(cmd)
	bindAdmin(cmd, &records)
	out.bind(cmd)
	return cmd
}

func clusterTable(w io.Writer, clusters []admin.Cluster) error {
	lines := make([][]string, 0, len(clusters))
	for _, c := range clusters {
		lines = append(lines, []string{c.Name, c.State, strconv.Itoa(len(c.Agents)), kubernetesText(c.Agents), c.Version, when(c.LastSeen), labelText(c.Labels)})
	}
	return rows(w, []string{"NAME", "STATE", "AGENTS", "KUBERNETES", "VERSION", "LAST SEEN", "LABELS"}, lines)
}

// kubernetesText says whether the agents reach their API server, as they say.
func kubernetesText(agents []admin.Agent) string {
	failed := 0
	for _, a := range agents {
		if a.KubernetesFailure != "" {
			failed++
		}
	}
	switch {
	case len(agents) == 0:
		return ""
	case failed == 0:
		return "ok"
	case failed == len(agents):
		return "away"
	default:
		return fmt.Sprintf("away for %d of %d", failed, len(agents))
	}
}

func clustersGetCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var records bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a cluster that you may reach or, with --admin, all that the hub knows of it",
		Example: `  culvert clusters get edge-1
  culvert clusters get edge-1 --admin
  culvert clusters get --state /var/lib/culvert edge-1 -o yaml`,
		Args:              oneName("cluster's name"),
		ValidArgsFunction: completeClusters(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !records && hub.state == "" {
				return getReachable(cmd, &hub.caller, &out, args[0])
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				cluster, err := c.GetCluster(ctx, args[0])
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), cluster, func(w io.Writer) error { return clusterText(w, cluster) })
			})
		},
	}
	hub.bind(cmd)
	bindAdmin(cmd, &records)
	out.bind(cmd)
	return cmd
}

func clusterText(w io.Writer, c admin.Cluster) error {
	pairs := [][2]string{
		{"Name", c.Name}, {"State", c.State}, {"Labels", labelText(c.Labels)}, {"Version", c.Version},
		{"Joined", when(c.Joined)}, {"First seen", when(c.FirstSeen)}, {"Last seen", when(c.LastSeen)},
	}
	if c.Direct != nil {
		pairs = append(pairs, [2]string{"Direct URL", c.Direct.URL})
	}
	for _, a := range c.Agents {
		pairs = append(pairs, [2]string{"Agent", fmt.Sprintf("%s at %s, version %s, since %s, %d sessions", a.Name, a.Remote, a.Version, when(a.Since), a.Sessions)})
		if a.KubernetesFailure != "" {
			pairs = append(pairs, [2]string{"Kubernetes", "the agent " + a.Name + " cannot reach it: " + a.KubernetesFailure})
		}
	}
	for _, cert := range c.Certificates {
		pairs = append(pairs, [2]string{"Certificate", fmt.Sprintf("serial %s, issued %s, expires %s", cert.Serial, when(cert.Issued), until(cert.NotAfter))})
	}
	if p := c.Pending; p != nil {
		pairs = append(pairs, [2]string{"Waits", fmt.Sprintf("since %s, from %s", when(p.Asked), p.Remote)}, [2]string{"Key", p.Key})
		if !p.Accepted.IsZero() {
			pairs = append(pairs, [2]string{"Accepted", when(p.Accepted) + " by " + p.AcceptedBy})
		}
	}
	if r := c.Revocation; r != nil {
		pairs = append(pairs, [2]string{"Revoked", when(r.At) + " by " + r.By}, [2]string{"Reason", r.Reason}, [2]string{"Restored", when(r.Restored)})
	}
	return fields(w, pairs...)
}

func clustersAcceptCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var how admin.Acceptance
	cmd := &cobra.Command{
		Use:   "accept NAME",
		Short: "Let a cluster join that waits to be accepted",
		Long: `Let a cluster join that waits to be accepted. With --key only the agent whose key
has that fingerprint is accepted, which its log shows, and so does
culvert clusters get.`,
		Example:           "  culvert clusters accept edge-1\n  culvert clusters accept --state /var/lib/culvert edge-1",
		Args:              oneName("cluster's name"),
		ValidArgsFunction: completeRecords(admin.ClusterPending),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				cluster, err := c.AcceptCluster(ctx, args[0], how)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), cluster, func(w io.Writer) error { return clusterText(w, cluster) })
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	cmd.Flags().StringVar(&how.Key, "key", "", "fingerprint of the key of the agent that is meant (default: whoever waits)")
	return cmd
}

func clustersRevokeCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var why admin.RevokeRequest
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Lock a cluster out: cut its tunnels now, and refuse its certificates",
		Long: `Lock a cluster out: cut its tunnels now with everything in them, and refuse all
certificates that it has, also after a restart of the hub. Its unused join tokens
are revoked too. A new join token brings the cluster back with a new certificate.`,
		Example: `  culvert clusters revoke edge-1 --reason "laptop stolen"
  culvert clusters revoke --state /var/lib/culvert edge-1 --reason "laptop stolen"`,
		Args:              oneName("cluster's name"),
		ValidArgsFunction: completeClusters(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				done, err := c.RevokeCluster(ctx, args[0], why)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "cluster %s is revoked, %d tunnels were cut\n", printable(done.Cluster), done.Cut)
					return err
				})
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	cmd.Flags().StringVar(&why.Reason, "reason", "", "why, for those who read it later (default none)")
	return cmd
}

func clustersRestoreCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Let a revoked cluster come back whose certificates others issue",
		Long: `Let a revoked cluster come back whose agents get their certificates from one of
the authorities in agentAuthorities, as those of Open Cluster Management do.
Certificates from before the revocation stay refused: whoever issues them has to
issue new ones. Agents that have joined with a token need a new token instead.`,
		Example:           "  culvert clusters restore --state /var/lib/culvert edge-1",
		Args:              oneName("cluster's name"),
		ValidArgsFunction: completeRecords(admin.ClusterRevoked),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				cluster, err := c.RestoreCluster(ctx, args[0])
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), cluster, func(w io.Writer) error { return clusterText(w, cluster) })
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	return cmd
}
