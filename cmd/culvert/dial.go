package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/forward"
)

// atOnce is the patience of a command whose user wants to know now: the first attempt
// counts.
const atOnce = -1

// openClient returns the client library as the flags say. The caller closes it. log gets
// a line when the connection to the hub is lost and one when it is back; patience is
// that of client.Config.
func openClient(cmd *cobra.Command, flags *callerFlags, log slog.Handler, patience time.Duration) (*client.Client, error) {
	if flags.insecure {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: --insecure-skip-tls-verify: nobody proves to be the hub: whoever is on the way reads and changes everything, "+
			"your credentials included; give --hub-ca in its place")
	}
	c, _, err := flags.dial(cmd.ErrOrStderr(), func(config *client.Config) {
		config.UserAgent, config.Logger, config.Patience = "culvert "+cmd.Name(), slog.New(log), patience
	})
	return c, err
}

// withClient runs do with a client that is closed afterwards.
func withClient(cmd *cobra.Command, flags *callerFlags, log slog.Handler, patience time.Duration, do func(ctx context.Context, c *client.Client) error) (err error) {
	c, err := openClient(cmd, flags, log, patience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(cmd.Context(), c)
}

// probeTime bounds one look at a target.
const probeTime = 15 * time.Second

// findTargets makes sure that the way to targets is there: what is certain to fail should
// fail before a listener says that it is ready. A target that does not answer is not
// certain to fail, and is left to its first connection.
func findTargets(ctx context.Context, c *client.Client, targets ...forward.Destination) error {
	listed, err := c.Clusters(ctx)
	if err != nil {
		return err
	}
	connected := map[string]bool{}
	for _, one := range listed {
		connected[one.Name] = one.Connected
	}
	for _, to := range targets {
		up, ok := connected[to.Cluster]
		switch {
		case ok && !up:
			return &client.Error{
				Op: "find", Code: client.Unavailable, Hop: client.HopHub, Cluster: to.Cluster,
				Err: errors.New("no agent of the cluster is connected: start one, or see the log of the one that runs there"),
			}
		case !ok:
			// The list has the clusters whose API the caller may reach; of others they may
			// still reach an address.
			if err := probe(ctx, c, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// nowhere is an address that leads to nothing (RFC 6761 section 6.4): what the hub says of
// it is about the cluster.
const nowhere = "nowhere.invalid:1"

// probe opens and closes a connection. It returns what the hub has against it; without an
// address, what it has against the cluster.
func probe(ctx context.Context, c *client.Client, to forward.Destination) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	address := cmp.Or(to.Address, nowhere)
	conn, err := c.DialContext(ctx, to.Cluster, "tcp", address)
	if err == nil {
		return conn.Close()
	}
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case ok && e.Hop != client.HopHub:
		return nil
	case ok && to.Address == "" && e.Code == client.PermissionDenied:
		return nil // which other addresses may be allowed
	}
	return err
}
