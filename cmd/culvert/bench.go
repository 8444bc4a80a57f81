package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
)

const (
	// maxBench bounds the time of a bench, and maxParallel what it does at once: it is
	// to measure, and not to be in others' way.
	maxBench    = 10 * time.Minute
	maxParallel = 256
)

// benchOptions are the flags of culvert bench.
type benchOptions struct {
	caller callerFlags
	output outputFlag

	duration time.Duration
	parallel int
	discard  bool
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench CLUSTER [HOST:PORT]",
		Short: "Measure what goes through the tunnel to a cluster",
		Long: `Measure what goes through the tunnel to a cluster, from this machine, over the one
connection that every program has.

Without HOST:PORT it asks the cluster's API server for /version, again and again: requests
a second, and how long one takes.

HOST:PORT is a server of yours behind the agent that sends back what it gets, such as
socat -t 30 TCP-LISTEN:7,fork,reuseaddr EXEC:cat. Three things are measured, each for a
third of the time: how many connections can be opened, one after the other in each of
--parallel; how long 64 bytes take there and back on a connection that is open; and how
many bytes come back. With --discard the server reads and says nothing, until its end: what
is counted is what it has read to the end.

It puts load on the hub, the agent and the server for as long as it runs.`,
		Example: `  culvert bench edge-1
  culvert bench edge-1 echo.prod:7 --duration 30s --parallel 1
  culvert bench edge-1 sink.prod:9 --discard --output json`,
		ValidArgsFunction: completeClusters(1),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return errors.New("want one or two arguments, the cluster and HOST:PORT")
			}
			return errors.Join(checkDestination(args[0], append(args, "any:1")[1]), o.check(len(args) == 2))
		},
		RunE: o.run,
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	o.output.bind(cmd)
	f := cmd.Flags()
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to measure in all, at most "+maxBench.String())
	f.IntVar(&o.parallel, "parallel", 8, fmt.Sprintf("requests or connections at a time, at most %d", maxParallel))
	f.BoolVar(&o.discard, "discard", false, "HOST:PORT reads to the end and sends nothing back")
	return cmd
}

// measure is one thing that was measured. Times are nanoseconds in JSON.
type measure struct {
	What      string  `json:"what"`
	Count     int     `json:"count,omitempty"`
	Errors    int     `json:"errors,omitempty"`
	PerSecond float64 `json:"perSecond,omitempty"`
	// BytesPerSecond is of what has arrived, each byte once.
	BytesPerSecond float64       `json:"bytesPerSecond,omitempty"`
	Median         time.Duration `json:"median,omitempty"`
	P99            time.Duration `json:"p99,omitempty"`
	Max            time.Duration `json:"max,omitempty"`
	// Error is the first that was met.
	Error string `json:"error,omitempty"`
}

// benchResult is all that was measured.
type benchResult struct {
	Cluster  string        `json:"cluster"`
	Target   string        `json:"target,omitempty"`
	Parallel int           `json:"parallel"`
	Duration time.Duration `json:"duration"`
	Measures []measure     `json:"measures"`
}

func (o *benchOptions) check(address bool) error {
	switch {
	case o.duration < time.Second || o.duration > maxBench:
		return fmt.Errorf("--duration: want 1s to %s", maxBench)
	case o.parallel < 1 || o.parallel > maxParallel:
		return fmt.Errorf("--parallel: want 1 to %d", maxParallel)
	case o.discard && !address:
		return errors.New("--discard: is for HOST:PORT")
	}
	return o.output.check()
}

func (o *benchOptions) run(cmd *cobra.Command, args []string) error {
	return withClient(cmd, &o.caller, &said{to: &lines{w: cmd.ErrOrStderr()}}, atOnce, func(ctx context.Context, c *client.Client) error {
		result := benchResult{Cluster: args[0], Parallel: o.parallel, Duration: o.duration}
		var phases []func(context.Context) (measure, error)
		if len(args) == 1 {
			phases = append(phases, func(ctx context.Context) (measure, error) { return o.requests(ctx, c, args[0]) })
		} else {
			result.Target = args[1]
			t := &benchTarget{client: c, cluster: args[0], address: args[1]}
			phases = append(phases, func(ctx context.Context) (measure, error) { return o.opens(ctx, t) })
			if o.discard {
				phases = append(phases, func(ctx context.Context) (measure, error) { return o.upload(ctx, t) })
			} else {
				phases = append(phases, func(ctx context.Context) (measure, error) { return o.roundTrips(ctx, t) },
					func(ctx context.Context) (measure, error) { return o.echoed(ctx, t) })
			}
		}
		// What is wrong from the start is no measurement.
		if err := startable(ctx, c, args[0], result.Target); err != nil {
			return err
		}
		for i, phase := range phases {
			stop := progress(cmd.ErrOrStderr(), fmt.Sprintf("measuring, %d of %d", i+1, len(phases)))
			m, err := o.phase(ctx, o.duration/time.Duration(len(phases)), phase)
			stop()
			if err != nil {
				return err
			}
			result.Measures = append(result.Measures, m)
		}
		return o.output.print(cmd.OutOrStdout(), result, result.table)
	})
}

// startable makes sure that there is something to measure.
func startable(ctx context.Context, c *client.Client, cluster, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if address == "" {
		_, err := c.Ping(ctx, cluster)
		return err
	}
	conn, err := c.DialContext(ctx, cluster, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// phase measures for a time. Its error is for a phase in which nothing worked.
func (o *benchOptions) phase(ctx context.Context, d time.Duration, measured func(context.Context) (measure, error)) (measure, error) {
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	m, err := measured(timed)
	if err == nil {
		err = context.Cause(ctx) // interrupted: half a measurement is none
	}
	return m, err
}

func (r *benchResult) table(w io.Writer) error {
	to := r.Cluster
	if r.Target != "" {
		to += " " + r.Target
	}
	if _, err := fmt.Fprintf(w, "%s, %d at a time, %s in all\n\n", printable(to), r.Parallel, r.Duration); err != nil {
		return err
	}
	var table [][]string
	for _, m := range r.Measures {
		line := []string{m.What, "", "", "", "", fmt.Sprint(m.Errors)}
		if m.BytesPerSecond > 0 {
			line[1] = size(int64(m.BytesPerSecond)) + "/s"
		} else {
			line[1], line[2], line[3], line[4] = fmt.Sprintf("%.1f/s", m.PerSecond), short(m.Median), short(m.P99), short(m.Max)
		}
		table = append(table, line)
	}
	if err := rows(w, []string{"WHAT", "RATE", "MEDIAN", "P99", "MAX", "ERRORS"}, table); err != nil {
		return err
	}
	for _, m := range r.Measures {
		if m.Error != "" {
			if _, err := fmt.Fprintf(w, "%s: the first error: %s\n", m.What, printable(m.Error)); err != nil {
				return err
			}
		}
	}
	return nil
}
