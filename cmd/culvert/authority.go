package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
)

func pkiShowCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show the certificate authorities of a running hub",
		Example: "  culvert pki show --state /var/lib/culvert",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				authorities, err := c.ListAuthorities(ctx)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), admin.List[admin.Authority]{Items: authorities}, func(w io.Writer) error {
					return authorityTable(w, authorities)
				})
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	return cmd
}

func authorityTable(w io.Writer, authorities []admin.Authority) error {
	var lines [][]string
	add := func(role, use string, ca admin.CA) {
		lines = append(lines, []string{role, use, ca.Subject, until(ca.NotAfter), ca.Fingerprint})
	}
	for _, a := range authorities {
		use := "trusted"
		if a.Signs {
			use = "signs"
		}
		add(a.Role, use, a.Active)
		for _, ca := range a.Trusted {
			add(a.Role, "trusted", ca)
		}
	}
	return rows(w, []string{"ROLE", "USE", "SUBJECT", "EXPIRES", "SHA-256 FINGERPRINT"}, lines)
}

func pkiRotateCommand() *cobra.Command {
	var hub hubFlags
	var out outputFlag
	var role string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new certificate authority for a role of a running hub",
		Long: `Make a new certificate authority for a role of a running hub. It signs from now
on; the old one stays trusted, so that nothing that is under way, and no
certificate in use, breaks. Roles: agents, serving, users, peers.`,
		Example: "  culvert pki rotate --state /var/lib/culvert --role serving",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return hub.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
				authority, err := c.RotateAuthority(ctx, role)
				if err != nil {
					return err
				}
				err = out.print(cmd.OutOrStdout(), authority, func(w io.Writer) error {
					return authorityTable(w, []admin.Authority{authority})
				})
				if err == nil && out.people() {
					fmt.Fprintf(cmd.ErrOrStderr(), "The %s CA signs with a new key; %s older are trusted until their certificates have expired.\n",
						printable(authority.Role), strconv.Itoa(len(authority.Trusted)))
				}
				return err
			})
		},
	}
	hub.bind(cmd)
	out.bind(cmd)
	cmd.Flags().StringVar(&role, "role", "", "agents, serving, users or peers (required)")
	completeWords(cmd, "role", pki.Roles()...)
	required(cmd, "role")
	return cmd
}
