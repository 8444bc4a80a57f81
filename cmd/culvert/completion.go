package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/profile"
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

// completeWords makes a flag complete one of some words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was just added
	}
}
