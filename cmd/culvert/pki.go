package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

func pkiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make, show and rotate the CAs of a hub, and make certificates of agents",
		Example: `  culvert pki fetch --hub hub.example.com:8443 --fingerprint 1F:C3:… > ca.crt
  culvert pki show --state /var/lib/culvert`,
	}
	cmd.AddCommand(pkiInitCommand(), pkiAgentCommand(), pkiFetchCommand(), pkiShowCommand(), pkiRotateCommand())
	return cmd
}

func pkiInitCommand() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Create the CAs of a hub, where they are missing",
		Example: "  culvert pki init --state /var/lib/culvert",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := server.PKIDir(state)
			for _, role := range pki.Roles() {
				if _, err := pki.LoadOrCreate(dir, role); err != nil {
					return err
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, role+"-ca.crt")); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "the hub's state folder (required)")
	required(cmd, "state")
	return cmd
}

func pkiAgentCommand() *cobra.Command {
	var state, cluster, out, trustDomain string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Issue the certificate of an agent from the hub's agents CA",
		Long: `Issue the certificate of an agent from the hub's agents CA, and write it with its
key and the hub's serving CA as tls.crt, tls.key and ca.crt. The certificate says
whose cluster the agent serves; whoever has the key can be that cluster.`,
		Example: "  culvert pki agent --state /var/lib/culvert --cluster edge-1 --out edge-1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca := filepath.Join(server.PKIDir(state), pki.RoleAgents+"-ca.crt")
			if _, err := os.Stat(ca); err != nil { // a new CA would be of no hub
				return fmt.Errorf("--state: no CA of a hub: %w: start the hub there, or run culvert pki init, first", err)
			}
			if err := issueAgent(state, trustDomain, cluster, out, lifetime); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "culvert-agent --hub HOST:PORT --hub-ca %s --cert %s --key %s\n",
				filepath.Join(out, "ca.crt"), filepath.Join(out, "tls.crt"), filepath.Join(out, "tls.key"))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "the hub's state folder (required)")
	f.StringVar(&cluster, "cluster", "", "name of the agent's cluster, a DNS-1123 label (required)")
	f.StringVar(&out, "out", "", "folder to write to (required)")
	f.StringVar(&trustDomain, "trust-domain", server.DefaultTrustDomain, "trust domain of the agent's SPIFFE id, as the hub has it")
	f.DurationVar(&lifetime, "lifetime", pki.DefaultLifetime, "how long the certificate is valid")
	required(cmd, "state", "cluster", "out")
	return cmd
}

// required makes cmd refuse to run while one of these string flags has no value,
// given as an empty one too: an empty folder would be the one it is started in.
func required(cmd *cobra.Command, flags ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		var problems []error
		for _, name := range flags {
			if f := cmd.Flags().Lookup(name); f.Value.String() == "" {
				problems = append(problems, fmt.Errorf("--%s: required: %s", name, strings.TrimSuffix(f.Usage, " (required)")))
			}
		}
		return cli.Usage(errors.Join(problems...))
	}
}

// issueAgent writes a new key and certificate for an agent of cluster to out.
func issueAgent(state, trustDomain, cluster, out string, lifetime time.Duration) error {
	agents, err := pki.LoadOrCreate(server.PKIDir(state), pki.RoleAgents)
	if err != nil {
		return err
	}
	serving, err := pki.LoadOrCreate(server.PKIDir(state), pki.RoleServing)
	if err != nil {
		return err
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	cert, err := agents.IssueAgent(key.Public(), trustDomain, cluster, lifetime)
	if err != nil {
		return err
	}
	encoded, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	return pki.WriteKeyPair(out, cert, encoded, serving.PEM())
}
