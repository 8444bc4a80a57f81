package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func (d *demo) userKubeconfig() string { return filepath.Join(d.dir, "test-sa.kubeconfig") }

func (d *demo) tokenFile() string { return filepath.Join(d.dir, "test-sa.token") }

// writeUserFiles writes what a user of the running demo needs, with a token that
// lasts longer than the default hour.
func (d *demo) writeUserFiles(ctx context.Context) error {
	token, err := d.hub.CreateToken(ctx, "open-cluster-management-hub", "test-sa", "--duration=24h")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(d.caFile)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.tokenFile(), []byte(token), 0o600); err != nil {
		return err
	}
	return os.WriteFile(d.userKubeconfig(), testbed.Kubeconfig(d.url()+"/managed", ca, token), 0o600)
}

// printUsage says how to use what runs, from another terminal.
func (d *demo) printUsage(s screen) {
	kubectl := filepath.Join(d.dir, "bin", "kubectl")
	s.heading("It keeps running. From another terminal, as the hub user test-sa:")
	fmt.Fprintf(s.out, `
  %s --kubeconfig %s -n %s get pods

  %s

As the administrator of the managed cluster, without the hub, to change what test-sa may do:

  %s --kubeconfig %s --context managed -n %s get pods,roles,rolebindings

Logs: %s/culvert-hub.log and culvert-agent.log

Ctrl-C stops everything and removes %[8]s.
`,
		kubectl, d.userKubeconfig(), agentNamespace,
		d.curl("$(cat "+d.tokenFile()+")", agentNamespace),
		kubectl, d.kubeconfig, agentNamespace,
		d.dir)
}
