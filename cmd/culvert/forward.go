package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/forward"
)

// forwardOptions are the flags of culvert forward.
type forwardOptions struct {
	caller callerFlags
	report reportFlags

	maxConnections int
}

func forwardCommand() *cobra.Command {
	var o forwardOptions
	cmd := &cobra.Command{
		Use:   "forward [CLUSTER] [[BIND:]PORT:]HOST:PORT... [-- COMMAND ARG...]",
		Short: "Forward local ports to addresses behind agents",
		Long: `Forward local ports and Unix sockets to TCP addresses behind the agents of clusters,
which look the names up. It prints a line for each listener once everything is ready,
and ends with Ctrl-C. When the connection to the hub is lost it makes a new one by
itself: what was open is cut, and new connections work again.

Each of the forms may be given several times:
  5432:db.prod:5432              local port 5432 on 127.0.0.1
  db.prod:5432                   the same
  0:db.prod:5432                 a free local port; the line says which
  10.0.0.7:5432:db.prod:5432     on another address, * for all: others can reach it
  unix:/tmp/db.sock:db.prod:5432 a Unix socket, for you alone
  edge-2/5433:db.prod:5432       to another cluster than CLUSTER

With -- COMMAND it runs the command once everything is ready, and ends with it and with
its exit code. The command finds the listeners in CULVERT_FORWARD_1 (127.0.0.1:5432),
CULVERT_FORWARD_1_HOST and CULVERT_FORWARD_1_PORT, CULVERT_FORWARD_2 and so on.`,
		Example: `  culvert forward edge-1 5432:db.prod:5432
  culvert forward edge-1 5432:db.prod:5432 8080:web.prod:80 edge-2/5433:db.prod:5432
  culvert forward edge-1 unix:/tmp/.s.PGSQL.5432:db.prod:5432
  culvert forward edge-1 0:db.prod:5432 -- sh -c 'psql -h 127.0.0.1 -p $CULVERT_FORWARD_1_PORT -U app'`,
		ValidArgsFunction: completeForward,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(o.report.check(), checkMaxConnections(o.maxConnections)); err != nil {
				return err
			}
			_, _, err := forwardArgs(args, cmd.ArgsLenAtDash())
			return err
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			specs, command, err := forwardArgs(args, cmd.ArgsLenAtDash())
			if err != nil {
				return err
			}
			return o.run(cmd, specs, command)
		},
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	o.report.bind(cmd)
	maxConnectionsFlag(cmd, &o.maxConnections)
	return cmd
}

func maxConnectionsFlag(cmd *cobra.Command, n *int) {
	cmd.Flags().IntVar(n, "max-connections", forward.DefaultMaxConnections, "connections at a time; one more is refused")
}

func checkMaxConnections(n int) error {
	if n < 1 {
		return fmt.Errorf("--max-connections: %d: want 1 or more", n)
	}
	return nil
}

// forwardArgs are the specs, and the command after --, whose place is dash.
func forwardArgs(args []string, dash int) (specs []forward.Spec, command []string, err error) {
	if dash >= 0 {
		args, command = args[:dash], args[dash:]
		if len(command) == 0 {
			return nil, nil, errors.New("--: want a command after it")
		}
	}
	cluster := ""
	if len(args) > 0 && !strings.ContainsAny(args[0], ":/") {
		cluster, args = args[0], args[1:]
	}
	if len(args) == 0 {
		return nil, nil, errors.New("want what to forward, such as 5432:db.prod:5432")
	}
	var problems []error
	for _, text := range args {
		spec, err := forward.ParseSpec(text, cluster)
		if err != nil {
			problems = append(problems, err)
		}
		specs = append(specs, spec)
	}
	return specs, command, errors.Join(problems...)
}

func (o *forwardOptions) run(cmd *cobra.Command, specs []forward.Spec, command []string) error {
	report := o.report.open(cmd, len(command) > 0)
	return withClient(cmd, &o.caller, report.log(), client.DefaultPatience, func(ctx context.Context, c *client.Client) error {
		var targets []forward.Destination
		for _, s := range specs {
			targets = append(targets, s.To)
		}
		stop := progress(cmd.ErrOrStderr(), "asking "+c.Hub())
		err := findTargets(ctx, c, targets...)
		stop()
		if err != nil {
			return err
		}
		// What a peer sends first travels with the open: most protocols begin so.
		listeners, err := forward.ListenAll(ctx, specs, c.DialEarly)
		if err != nil {
			return err
		}
		return serveListeners(ctx, report, o.maxConnections, listeners, command, listenerEnv(listeners))
	})
}

// serveListeners carries connections until ctx or the command ends, which gets env.
func serveListeners(ctx context.Context, report *report, maxConnections int, listeners []forward.Listener, command, env []string) error {
	server := forward.NewServer(forward.Config{MaxConnections: maxConnections, Observe: report.observe})
	if len(command) == 0 {
		report.ready(listeners)
		err := server.Serve(ctx, listeners...)
		report.summary()
		return err
	}
	// Ctrl-C is the command's: it goes on or ends, and everything ends with it.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	served := make(chan error, 1)
	go serve(serving, server, listeners, served)
	report.ready(listeners)
	err := runCommand(ctx, command, env)
	cancel()
	err = errors.Join(err, <-served)
	report.summary()
	return err
}

func serve(ctx context.Context, server *forward.Server, listeners []forward.Listener, done chan<- error) {
	done <- server.Serve(ctx, listeners...)
}

// warnExposed says which listeners others can reach.
func warnExposed(r *report, listeners []forward.Listener) {
	for _, l := range listeners {
		if forward.Exposed(l.Addr()) {
			r.warn(fmt.Sprintf("%s can be reached by others, who act as you: leave the address out to listen on this machine alone", l.Addr()))
		}
	}
}
