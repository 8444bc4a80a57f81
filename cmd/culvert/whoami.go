package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/profile"
)

func whoamiCommand() *cobra.Command {
	var caller callerFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "whoami",
		Short:   "Ask the hub who you are",
		Example: "  culvert whoami\n  culvert whoami --profile work -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			c, p, err := caller.dial(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			user, err := askWho(cmd.Context(), c, p, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), user, func(w io.Writer) error {
				return fields(w, [2]string{"Name", user.Name}, [2]string{"UID", user.UID}, [2]string{"Groups", strings.Join(user.Groups, ", ")},
					[2]string{"By", user.Method}, [2]string{"Expires", until(user.Expires)}, [2]string{"Hub", p.Hub + ", version " + user.Hub}, [2]string{"Profile", p.Name})
			})
		},
	}
	caller.bind(cmd)
	out.bind(cmd)
	return cmd
}

// askWho asks, and closes the client.
func askWho(ctx context.Context, c *client.Client, p profile.Profile, say io.Writer) (client.User, error) {
	stop := progress(say, "asking "+p.Hub)
	user, err := c.WhoAmI(ctx)
	stop()
	return user, errors.Join(err, c.Close())
}

// whoIs asks the hub before anything is kept.
func (o *loginOptions) whoIs(ctx context.Context, p profile.Profile, kept secrets, say io.Writer) (client.User, error) {
	from := kept.source()
	if from == nil {
		var err error
		if from, err = source(p, say); err != nil {
			return client.User{}, err
		}
	}
	c, err := client.New(clientConfig(p, from))
	if err != nil {
		return client.User{}, err
	}
	return askWho(ctx, c, p, say)
}

// describeUser is who somebody is, in a sentence.
func describeUser(user client.User) string {
	text := user.Name
	if len(user.Groups) > 0 {
		text += " (groups " + strings.Join(user.Groups, ", ") + ")"
	}
	return printable(text)
}

func logoutCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget a login: its tokens are deleted, the profile stays",
		Long: `Forget a login: its tokens are deleted from this machine, and the profile stays, so
that culvert login with the hub's URL is enough to log in again. The provider of an OpenID
Connect login is not told. A file that you gave with --token-file, and a client
certificate, are yours and stay where they are; the profile forgets them.`,
		Example: "  culvert logout\n  culvert logout --profile work",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done profile.Profile
			err := profile.Update(cmd.Context(), "", func(f *profile.File) error {
				p, err := f.Get(name)
				if err != nil {
					return err
				}
				done = p
				if err := forget(f, p.Name); err != nil {
					return err
				}
				if p.OIDC == nil { // which is no secret, and says how to log in again
					p.TokenFile, p.TokenCommand, p.CertFile, p.KeyFile = "", "", "", ""
				}
				f.Set(p)
				return nil
			})
			if err != nil {
				return err
			}
			if done.TokenCommand != "" {
				if err := forgetCached(done); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "You are logged out of %s, profile %s.\n", done.Hub, done.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "profile", "", "profile whose login is forgotten (default: CULVERT_PROFILE, or the current one)")
	completeProfiles(cmd, "profile")
	return cmd
}

// forgetCached removes what a program gave for a profile.
func forgetCached(p profile.Profile) error {
	return credential.Cache{Dir: cacheDir(), Scope: p.Hub}.Forget(credential.Command{Line: p.TokenCommand})
}
