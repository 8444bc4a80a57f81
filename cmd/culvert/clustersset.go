package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/front/admin"
)

func clustersSetCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var direct admin.Direct
	var caFile string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Record how a cluster is reached without the hub",
		Long: `Record how a cluster is reached without the hub. culvert kubeconfig --access auto uses
that while no agent of the cluster is connected, and so does --access direct. A cluster
may be set up before it joins, and without ever joining. An empty --direct-url removes
the record.`,
		Example: `  culvert clusters set --state /var/lib/culvert edge-1 --direct-url https://10.0.0.5:6443 --direct-ca edge-1-ca.crt
  culvert clusters set --state /var/lib/culvert edge-1 --direct-url ''`,
		Args:              oneName("cluster's name"),
		ValidArgsFunction: completeClusters(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !cmd.Flags().Changed("direct-url") {
				return errors.New("--direct-url: required: the URL of the API server, or an empty one to remove the record")
			}
			if caFile != "" {
				ca, err := os.ReadFile(caFile)
				if err != nil {
					return fmt.Errorf("--direct-ca: %w", err)
				}
				direct.CA = string(ca)
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				cluster, err := c.SetDirect(ctx, args[0], direct)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), cluster, func(w io.Writer) error { return clusterText(w, cluster) })
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	cmd.Flags().StringVar(&direct.URL, "direct-url", "", "URL of the API server as clients reach it, https://host:port (required)")
	cmd.Flags().StringVar(&caFile, "direct-ca", "", "PEM file of the CAs that verify it (default: the clients' systems')")
	return cmd
}
