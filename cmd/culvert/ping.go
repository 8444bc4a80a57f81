package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/route"
)

const (
	// leastInterval keeps a ping from being a load.
	leastInterval = 100 * time.Millisecond
	// pingTime bounds one.
	pingTime = 15 * time.Second
)

// pingOptions are the flags of culvert ping.
type pingOptions struct {
	caller callerFlags
	output outputFlag

	count    int
	interval time.Duration
}

func pingCommand() *cobra.Command {
	var o pingOptions
	cmd := &cobra.Command{
		Use:   "ping CLUSTER",
		Short: "Measure the way to a cluster, hop by hop",
		Long: `Measure the way to a cluster, hop by hop: the round trip from here to the hub, the one
from the hub to the agent, and what the agent's API server takes to answer. The first
line says which version each hop has.

It succeeds when one of the pings does.`,
		Example: `  culvert ping edge-1
  culvert ping edge-1 --count 20 --interval 200ms
  culvert ping edge-1 --count 1 --output json`,
		ValidArgsFunction: completeClusters(1),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("want one argument, the cluster")
			}
			if o.count < 0 || o.interval < leastInterval {
				return fmt.Errorf("--count, --interval: want a count of 0 or more, and at least %s", leastInterval)
			}
			return errors.Join(route.CheckCluster(args[0]), o.output.check())
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	o.output.bind(cmd)
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "c", 4, "how many; 0 goes on until Ctrl-C")
	f.DurationVarP(&o.interval, "interval", "i", time.Second, "time between two, at least "+leastInterval.String())
	return cmd
}

// pingResult is what culvert ping has found.
type pingResult struct {
	Cluster string        `json:"cluster"`
	Sent    int           `json:"sent"`
	Failed  int           `json:"failed"`
	Error   string        `json:"error,omitempty"`
	Hops    []pingHop     `json:"hops,omitempty"`
	Pings   []client.Ping `json:"pings,omitempty"`
}

// pingHop sums one hop up. In JSON its times are nanoseconds, as those of the pings.
type pingHop struct {
	Hop     string        `json:"hop"`
	Version string        `json:"version,omitempty"`
	Error   string        `json:"error,omitempty"`
	Min     time.Duration `json:"min"`
	Avg     time.Duration `json:"avg"`
	Max     time.Duration `json:"max"`
}

func (o *pingOptions) run(cmd *cobra.Command, cluster string) error {
	people := o.output.people()
	return withClient(cmd, &o.caller, &said{to: &lines{w: cmd.ErrOrStderr()}}, atOnce, func(ctx context.Context, c *client.Client) error {
		each := func(client.Ping, error) {}
		if people {
			each = pingLines(cmd.OutOrStdout())
		}
		result, err := o.ping(ctx, c, cluster, each)
		if people && err != nil && result.Sent == 1 {
			return err // which says it all
		}
		if err := o.output.print(cmd.OutOrStdout(), result, result.table); err != nil {
			return err
		}
		return err
	})
}

// ping does the pings, and tells each of them. A first one that fails is the last, unless
// it is to go on for good. The error is the last, where none succeeded.
func (o *pingOptions) ping(ctx context.Context, c *client.Client, cluster string, each func(client.Ping, error)) (pingResult, error) {
	result := pingResult{Cluster: cluster}
	var last error
	next := time.NewTicker(o.interval)
	defer next.Stop()
	for o.count == 0 || result.Sent < o.count {
		if result.Sent > 0 {
			select {
			case <-next.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		attempt, cancel := context.WithTimeout(ctx, pingTime)
		p, err := c.Ping(attempt, cluster)
		cancel()
		if err != nil && ctx.Err() != nil {
			break // interrupted, which is no failure of the way
		}
		result.Sent++
		if err != nil && result.Sent == 1 && o.count != 0 {
			result.Failed, result.Error = 1, err.Error()
			return result, err // what is wrong from the start stays so
		}
		each(p, err)
		if err != nil {
			last = err
			result.Failed++
			continue
		}
		result.Pings = append(result.Pings, p)
	}
	result.Hops = sumUp(result.Pings)
	if len(result.Pings) > 0 || last == nil {
		return result, nil
	}
	result.Error = last.Error()
	return result, last
}

// pingLines prints a line for each ping, and the versions before the first.
func pingLines(w io.Writer) func(client.Ping, error) {
	n, said := 0, false
	return func(p client.Ping, err error) {
		n++
		if err != nil {
			fmt.Fprintf(w, "%d: %s\n", n, printable(err.Error()))
			return
		}
		if !said {
			said = true
			fmt.Fprintf(w, "%s: client %s, hub %s, agent %s %s, API server %s\n", printable(p.Cluster), printable(p.ClientVersion), printable(p.HubVersion),
				printable(p.AgentName), printable(p.AgentVersion), printable(p.TargetVersion))
		}
		target := short(p.Target)
		if p.TargetError != "" {
			target = printable(p.TargetError)
		}
		fmt.Fprintf(w, "%d: hub %s, agent %s, API server %s\n", n, short(p.Hub), short(p.Agent), target)
	}
}

// sumUp makes the least, the mean and the greatest time of each hop.
func sumUp(pings []client.Ping) []pingHop {
	if len(pings) == 0 {
		return nil
	}
	last := pings[len(pings)-1]
	hops := []pingHop{{Hop: "hub", Version: last.HubVersion}, {Hop: "agent", Version: last.AgentVersion}, {Hop: "target", Version: last.TargetVersion, Error: last.TargetError}}
	counts := make([]time.Duration, len(hops))
	for _, p := range pings {
		for i, took := range []time.Duration{p.Hub, p.Agent, p.Target} {
			if hops[i].Hop == "target" && p.TargetError != "" {
				continue
			}
			h := &hops[i]
			if counts[i] == 0 {
				h.Min = took
			}
			counts[i]++
			h.Min, h.Max, h.Avg = min(h.Min, took), max(h.Max, took), h.Avg+took
		}
	}
	for i := range hops {
		if counts[i] > 0 {
			hops[i].Avg /= counts[i]
		}
	}
	return hops
}

// table prints what there is to say once the pings are over.
func (r *pingResult) table(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "\n%d sent, %d failed\n", r.Sent, r.Failed); err != nil || len(r.Hops) == 0 {
		return err
	}
	var table [][]string
	for _, h := range r.Hops {
		if h.Max == 0 && h.Error != "" {
			table = append(table, []string{h.Hop, h.Version, h.Error, "", ""})
			continue
		}
		table = append(table, []string{h.Hop, h.Version, short(h.Min), short(h.Avg), short(h.Max)})
	}
	return rows(w, []string{"HOP", "VERSION", "MIN", "AVG", "MAX"}, table)
}
