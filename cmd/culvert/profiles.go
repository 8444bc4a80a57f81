package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/profile"
)

func profilesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "profiles",
		Aliases: []string{"profile"},
		Short:   "List, choose, show and delete the hubs that you have logged in at",
		Long: `List, choose, show and delete the hubs that you have logged in at. culvert login makes
a profile for each. They are in the file of CULVERT_CONFIG or, without that,
culvert/config.yaml in your configuration folder, which holds no secret.`,
		Example: `  culvert profiles list
  culvert profiles use work`,
	}
	cmd.AddCommand(profilesListCommand(), profilesUseCommand(), profilesShowCommand(), profilesDeleteCommand())
	return cmd
}

// profileItem is a profile in a list.
type profileItem struct {
	Name       string `json:"name"`
	Hub        string `json:"hub"`
	Current    bool   `json:"current"`
	Credential string `json:"credential"`
}

func profilesListCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the profiles",
		Example: "  culvert profiles list\n  culvert profiles list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			file, err := profile.Load("")
			if err != nil {
				return err
			}
			items := make([]profileItem, 0, len(file.Profiles))
			for _, p := range file.Profiles {
				items = append(items, profileItem{Name: p.Name, Hub: p.Hub, Current: p.Name == file.Current, Credential: p.Credential()})
			}
			return out.print(cmd.OutOrStdout(), map[string]any{"items": items}, func(w io.Writer) error {
				var lines [][]string
				for _, i := range items {
					current := ""
					if i.Current {
						current = "*"
					}
					lines = append(lines, []string{current, i.Name, i.Hub, i.Credential})
				}
				return rows(w, []string{"CURRENT", "NAME", "HUB", "CREDENTIAL"}, lines)
			})
		},
	}
	out.bind(cmd)
	return cmd
}

func profilesUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a profile the current one, which counts where none is named",
		Example:           "  culvert profiles use work",
		Args:              oneName("profile's name"),
		ValidArgsFunction: oneProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := profile.Update(cmd.Context(), "", func(f *profile.File) error {
				if _, err := f.Get(args[0]); err != nil {
					return err
				}
				f.Current = args[0]
				return nil
			})
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is the current profile\n", args[0])
			}
			return err
		},
	}
}

func profilesShowCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:               "show [NAME]",
		Short:             "Show a profile, without a name the one that counts now",
		Example:           "  culvert profiles show\n  culvert profiles show work -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: oneProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if out.people() {
				out.form = formYAML // as it is in the file
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if p, ok, err := profile.FromEnvironment(); name == "" && (ok || err != nil) {
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "This is what CULVERT_HUB and the other variables of the environment say; unset them to use a profile.")
				return out.print(cmd.OutOrStdout(), p, nil)
			}
			file, err := profile.Load("")
			if err != nil {
				return err
			}
			p, err := file.Get(name)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), p, nil)
		},
	}
	out.bind(cmd)
	return cmd
}

func profilesDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a profile, with its login and its token",
		Example:           "  culvert profiles delete work",
		Args:              oneName("profile's name"),
		ValidArgsFunction: oneProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := profile.Update(cmd.Context(), "", func(f *profile.File) error {
				if !f.Delete(args[0]) {
					return &profile.MissingError{Name: args[0]}
				}
				return forget(f, args[0])
			})
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "profile %s is deleted\n", args[0])
			}
			return err
		},
	}
}

func oneProfile(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return profileNames(cmd, args, toComplete)
}

// forget removes the secrets of a profile.
func forget(f *profile.File, name string) error {
	dir := filepath.Dir(f.Path())
	var problems []error
	for _, path := range []string{profile.LoginPath(dir, name), profile.LoginPath(dir, name) + ".lock", profile.TokenPath(dir, name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}
