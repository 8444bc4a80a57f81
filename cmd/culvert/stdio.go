package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/forward"
	"github.com/culvertdev/culvert/internal/route"
)

func connectCommand() *cobra.Command {
	var caller callerFlags
	cmd := &cobra.Command{
		Use:   "connect CLUSTER HOST:PORT",
		Short: "Connect standard input and output to an address behind an agent",
		Long: `Connect standard input and output to a TCP address behind the agent of a cluster, which
looks the name up: for ProxyCommand of SSH, and in place of nc.

Standard output has the bytes of the target and nothing else. Each direction ends on its
own: the end of standard input is passed on and the target's answer still comes, and the
other way round. With a terminal as standard input the target's end is the end.

The exit code says what went wrong, and standard error why.`,
		Example: `  ssh -o ProxyCommand='culvert connect edge-1 %h:%p' admin@vm1.prod
  printf 'PING\r\nQUIT\r\n' | culvert connect edge-1 redis.prod:6379
  culvert connect edge-1 '[fd00::7]:22'`,
		ValidArgsFunction: completeClusters(1),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("want two arguments, the cluster and HOST:PORT, not %d", len(args))
			}
			return checkDestination(args[0], args[1])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			// ssh shows what a ProxyCommand says; a lost connection is the error anyway.
			return withClient(cmd, &caller, slog.DiscardHandler, atOnce, func(ctx context.Context, c *client.Client) error {
				conn, err := c.DialEarly(ctx, args[0], "tcp", args[1])
				if err != nil {
					return err
				}
				return forward.Pipe(ctx, conn, os.Stdin, os.Stdout, isTerminal(os.Stdin))
			})
		},
	}
	caller.bind(cmd)
	caller.bindInsecure(cmd)
	return cmd
}

// checkDestination tells what is wrong with arguments before anybody is asked.
func checkDestination(cluster, address string) error {
	if err := route.CheckCluster(cluster); err != nil {
		return err
	}
	_, err := route.ParseAddress(address)
	return err
}
