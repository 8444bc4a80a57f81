package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/route"
)

// reachable are the clusters that the caller may reach.
func reachable(ctx context.Context, caller *callerFlags, say io.Writer) ([]client.Cluster, error) {
	c, p, err := caller.dial(say, nil)
	if err != nil {
		return nil, err
	}
	stop := progress(say, "asking "+p.Hub)
	clusters, err := c.Clusters(ctx)
	stop()
	return clusters, errors.Join(err, c.Close())
}

func listReachable(cmd *cobra.Command, caller *callerFlags, out *outputFlag) error {
	clusters, err := reachable(cmd.Context(), caller, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if clusters == nil {
		clusters = []client.Cluster{} // an empty list in JSON too
	}
	return out.print(cmd.OutOrStdout(), map[string]any{"items": clusters}, func(w io.Writer) error {
		head, lines := reachableHead(out.wide()), [][]string(nil)
		for _, c := range clusters {
			lines = append(lines, reachableLine(c, out.wide()))
		}
		return rows(w, head, lines)
	})
}

func reachableHead(wide bool) []string {
	head := []string{"NAME", "STATUS", "AGENTS", "LAST SEEN", "LABELS"}
	if wide {
		head = append(head, "AGENT NAMES", "VERSIONS")
	}
	return head
}

func reachableLine(c client.Cluster, wide bool) []string {
	line := []string{c.Name, statusText(c), strconv.Itoa(len(c.Agents)), when(c.LastSeen), labelText(c.Labels)}
	if wide {
		var names, versions []string
		for _, a := range c.Agents {
			names = append(names, a.Name)
			if !slices.Contains(versions, a.Version) {
				versions = append(versions, a.Version)
			}
		}
		line = append(line, strings.Join(names, ","), strings.Join(versions, ","))
	}
	return line
}

func statusText(c client.Cluster) string {
	if c.Connected {
		return "connected"
	}
	return "away"
}

func getReachable(cmd *cobra.Command, caller *callerFlags, out *outputFlag, name string) error {
	clusters, err := reachable(cmd.Context(), caller, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(clusters, func(c client.Cluster) bool { return c.Name == name })
	if i < 0 {
		return &exitcode.Error{Code: exitcode.NotFound, Err: fmt.Errorf("the hub has no cluster %.80q that you may reach", name)}
	}
	c := clusters[i]
	return out.print(cmd.OutOrStdout(), c, func(w io.Writer) error {
		pairs := [][2]string{{"Name", c.Name}, {"Status", statusText(c)}, {"Labels", labelText(c.Labels)}, {"Last seen", when(c.LastSeen)}}
		for _, a := range c.Agents {
			pairs = append(pairs, [2]string{"Agent", fmt.Sprintf("%s, version %s, since %s", a.Name, a.Version, when(a.Since))})
		}
		return fields(w, pairs...)
	})
}

func clustersWatchCommand() *cobra.Command {
	var caller callerFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the clusters that you may reach, and each change of them",
		Long: `Show the clusters that you may reach, each as ADDED, then SYNCED, and then each change
as it comes, until it is interrupted. It outlives a lost connection. With -o json each
line is one event.`,
		Example: "  culvert clusters watch\n  culvert clusters watch -o json | jq --unbuffered .cluster.name",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			say := cmd.ErrOrStderr()
			c, _, err := caller.dial(say, func(config *client.Config) {
				config.Logger = slog.New(&said{to: &lines{w: say}})
			})
			if err != nil {
				return err
			}
			// A hub that is not there at all is no connection that was lost.
			if err = c.Connect(cmd.Context()); err == nil {
				err = watchClusters(cmd.Context(), c, cmd.OutOrStdout(), &out)
			}
			return errors.Join(err, c.Close())
		},
	}
	caller.bind(cmd)
	out.bind(cmd)
	return cmd
}

// eventWidth is that of the first column: no name is waited for.
const eventWidth = 28

func watchClusters(ctx context.Context, c *client.Client, w io.Writer, out *outputFlag) error {
	head := out.people()
	for event, err := range c.WatchClusters(ctx) {
		if err == nil && head {
			err = watchLine(w, append([]string{"EVENT"}, reachableHead(out.wide())...))
			head = false
		}
		if err == nil {
			err = printEvent(w, out, event)
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func printEvent(w io.Writer, out *outputFlag, event client.ClusterEvent) error {
	switch out.form {
	case formJSON:
		text, err := json.Marshal(event)
		if err != nil {
			return err
		}
		_, err = w.Write(append(text, '\n'))
		return err
	case formYAML:
		text, err := yaml.Marshal(event)
		if err != nil {
			return err
		}
		_, err = w.Write(append([]byte("---\n"), text...))
		return err
	}
	if event.Type == client.Synced {
		return watchLine(w, []string{string(event.Type)})
	}
	return watchLine(w, append([]string{string(event.Type)}, reachableLine(event.Cluster, out.wide())...))
}

func watchLine(w io.Writer, line []string) error {
	widths := []int{11, eventWidth, 12, 9, 23, 20, 20, 12}
	for i := range line {
		line[i] = printable(line[i])
	}
	return writeRows(w, widths, [][]string{line})
}

// clusterNames are those that a command with hub flags can mean, for a shell.
func clusterNames(ctx context.Context, cmd *cobra.Command) []string {
	var names []string
	if f := cmd.Flags().Lookup("state"); f != nil && f.Value.String() != "" {
		for _, c := range records(ctx, cmd) {
			if route.CheckCluster(c.Name) == nil { // a shell reads it
				names = append(names, c.Name+"\t"+c.State)
			}
		}
		return names
	}
	caller := callerOf(cmd)
	clusters, err := reachable(ctx, &caller, io.Discard)
	if err != nil {
		return nil
	}
	for _, c := range clusters {
		if route.CheckCluster(c.Name) == nil { // a shell reads it
			names = append(names, c.Name+"\t"+statusText(c))
		}
	}
	return names
}

// callerOf are the flags of a command line that is not finished.
func callerOf(cmd *cobra.Command) (caller callerFlags) {
	for flag, value := range map[string]*string{
		"profile": &caller.profile, "hub": &caller.hub, "hub-ca": &caller.hubCA, "token-file": &caller.tokenFile,
		"token-command": &caller.tokenCommand, "client-cert": &caller.clientCert, "client-key": &caller.clientKey,
	} {
		if f := cmd.Flags().Lookup(flag); f != nil {
			*value = f.Value.String()
		}
	}
	if f := cmd.Flags().Lookup("insecure-skip-tls-verify"); f != nil {
		caller.insecure = f.Value.String() == "true"
	}
	return caller
}
