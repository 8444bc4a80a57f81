package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
)

// openClient returns the client library as the flags say. The caller closes it. log gets
// a line when the connection to the hub is lost and one when it is back.
func openClient(cmd *cobra.Command, flags *callerFlags, log slog.Handler) (*client.Client, error) {
	if flags.insecure {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: --insecure-skip-tls-verify: nobody proves to be the hub: whoever is on the way reads and changes everything, "+
			"your credentials included; give --hub-ca in its place")
	}
	return client.New(client.Config{
		Hub: flags.hub, HubCA: flags.hubCA, TokenFile: flags.tokenFile, TokenCommand: flags.tokenCommand, InsecureSkipVerify: flags.insecure,
		UserAgent: "culvert " + cmd.Name(), Logger: slog.New(log),
	})
}

// withClient runs do with a client that is closed afterwards.
func withClient(cmd *cobra.Command, flags *callerFlags, log slog.Handler, do func(ctx context.Context, c *client.Client) error) (err error) {
	c, err := openClient(cmd, flags, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(cmd.Context(), c)
}

// findClusters makes sure that clusters can be reached: what is certain to fail should
// fail before a listener says that it is ready.
func findClusters(ctx context.Context, c *client.Client, names ...string) error {
	all, err := c.Clusters(ctx)
	if err != nil {
		return err
	}
	known := map[string]client.Cluster{}
	for _, one := range all {
		known[one.Name] = one
	}
	for _, name := range names {
		one, ok := known[name]
		switch {
		case !ok:
			return &client.Error{
				Op: "find", Code: client.NotFound, Hop: client.HopHub, Cluster: name,
				Err: errors.New("the hub has no such cluster, or you may not reach it: culvert clusters list prints those that you may"),
			}
		case !one.Connected:
			return &client.Error{
				Op: "find", Code: client.Unavailable, Hop: client.HopHub, Cluster: name,
				Err: errors.New("no agent of the cluster is connected: start one, or look at the log of the one that runs there"),
			}
		}
	}
	return nil
}
