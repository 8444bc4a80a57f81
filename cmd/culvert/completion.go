package main

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/profile"
	"github.com/culvertdev/culvert/internal/route"
)

// completionTime is how long a shell waits for the names of clusters.
const completionTime = 2 * time.Second

// completeProfiles makes a flag complete the names of profiles.
func completeProfiles(cmd *cobra.Command, flag string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, profileNames); err != nil {
		panic(err) // the flag was just added
	}
}

// profileNames are those of the file; on an error none.
func profileNames(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	file, err := profile.Load("")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range file.Profiles {
		if strings.HasPrefix(p.Name, toComplete) {
			names = append(names, p.Name+"\t"+p.Hub)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeClusters completes arguments that are names of clusters, at most so many of
// them, 0 for any number. The hub is asked, as the flags, the environment and the profile
// say, for two seconds; an error is no name, since a shell has no place for it.
func completeClusters(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var names []string
		for _, c := range clusterNames(ctx, cmd) {
			name, _, _ := strings.Cut(c, "\t")
			if strings.HasPrefix(name, toComplete) && !slices.Contains(args, name) {
				names = append(names, c)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeClusterFlag makes --cluster complete the names of clusters.
func completeClusterFlag(cmd *cobra.Command) {
	if err := cmd.RegisterFlagCompletionFunc("cluster", completeClusters(0)); err != nil {
		panic(err) // the flag was just added
	}
}

// completeForward completes what stands before the targets or the command of a listener:
// the cluster. Behind -- everything is the command's.
func completeForward(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if behindDash() {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return completeClusters(1)(cmd, args, toComplete)
}

// behindDash tells whether the word to complete stands behind --. Cobra parses one of its
// own, so that the command does not know.
func behindDash() bool { return slices.Contains(os.Args[:len(os.Args)-1], "--") }

// completeRecords completes one name of the hub's own records that is in a state.
func completeRecords(state string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var names []string
		for _, c := range records(ctx, cmd) {
			if c.State == state && strings.HasPrefix(c.Name, toComplete) && route.CheckCluster(c.Name) == nil { // a shell reads it
				names = append(names, c.Name+"\t"+c.State)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// records are the clusters that the hub of the flags knows, for a shell; on an error none.
func records(ctx context.Context, cmd *cobra.Command) []admin.Cluster {
	hub := hubFlags{caller: callerOf(cmd)}
	if f := cmd.Flags().Lookup("state"); f != nil {
		hub.state = f.Value.String()
	}
	c, err := hub.client(ctx, io.Discard)
	if err != nil {
		return nil
	}
	defer c.Close()
	clusters, err := c.ListClusters(ctx)
	if err != nil {
		return nil
	}
	return clusters
}

// completeWords makes a flag complete one of some words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was just added
	}
}
