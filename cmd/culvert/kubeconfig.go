package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/kubeconfig"
)

// accessBoth makes two contexts for each cluster.
const accessBoth = "both"

// kubeconfigOptions are the flags of culvert kubeconfig.
type kubeconfigOptions struct {
	caller callerFlags

	clusters []string
	all      bool
	mode     string
	access   string
	wait     time.Duration
	name     string

	from         string
	tokenRequest string
	duration     time.Duration
	rotate       bool
	embedToken   bool
	proxyURL     string
	namespace    string

	merge      bool
	file       string
	force, use bool
	output     string
}

func kubeconfigCommand() *cobra.Command {
	var o kubeconfigOptions
	cmd := &cobra.Command{
		Use:   "kubeconfig [CLUSTER...]",
		Short: "Make a kubeconfig for clusters of a hub, and verify it",
		Long: `Make a kubeconfig for clusters of a hub, and verify it. The hub gives one only when
it has verified the way to the cluster with the very CA that is in it, and this
command makes a request with what it is about to write before it writes.

The modes:
  path         https://<hub>/<cluster>; the hub authenticates you
  sni          the cluster's own name at the hub; the hub authenticates you
  passthrough  the same name; TLS and user are the cluster's own (--from), whose
               certificate needs the name: the command prints how it gets it
  end-to-end   the cluster itself by way of the hub as an HTTP proxy; TLS and user
               are the cluster's own (--from), and it needs no change

In the first two your credential is not in the file: kubectl gets it from culvert
credential, with the profile, --token-file or --token-command of this call.`,
		Example: `  culvert kubeconfig edge-1 --merge
  culvert kubeconfig --all --output hub.kubeconfig
  culvert kubeconfig --hub https://hub.example.com:8443 --hub-ca ca.crt --token-file me.token edge-1 --merge
  culvert kubeconfig edge-1 --mode end-to-end --from edge-1-admin --name edge-1-e2e --merge
  culvert kubeconfig edge-1 --token-request ci/deployer --duration 1h -o ci.kubeconfig`,
		ValidArgsFunction: completeClusters(0),
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.clusters = append(o.clusters, args...)
			return o.run(cmd)
		},
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.clusters, "cluster", nil, "name of a cluster, as an argument is (repeat)")
	f.BoolVar(&o.all, "all", false, "every cluster that you may reach and that is ready, in place of names")
	f.StringVar(&o.mode, "mode", string(kubeconfig.ModePath), "path, sni, passthrough or end-to-end")
	f.StringVar(&o.access, "access", string(kubeconfig.AccessAuto), "tunnel, direct, auto for the tunnel where an agent is connected and else the direct URL, or both for the contexts NAME-tunnel and NAME-direct")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait until the way to a cluster is verified, at most 2m")
	f.StringVar(&o.name, "name", "", "name of the context, with one cluster (default: the cluster's)")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the contexts (default none)")
	f.StringVar(&o.from, "from", "", "context whose user, and for passthrough and end-to-end whose CA, are taken (default: you at the hub, and the CA that the cluster publishes)")
	f.StringVar(&o.tokenRequest, "token-request", "", "NAMESPACE/NAME of a service account of the cluster whose bound token becomes the user; you need the right to create it")
	f.DurationVar(&o.duration, "duration", time.Hour, "how long the token of --token-request lasts")
	f.BoolVar(&o.rotate, "rotate", false, "with --token-request: let culvert credential get a new token each time, in place of one in the file")
	f.BoolVar(&o.embedToken, "embed-token", false, "put your token into the file, in place of culvert credential")
	f.StringVar(&o.proxyURL, "proxy-url", "", "proxy of the mode end-to-end, such as http://hub.example.com:3128 (default: the hub, with your token)")
	f.BoolVar(&o.merge, "merge", false, "add to the kubeconfig that kubectl reads; what it was before is kept as FILE.bak")
	f.StringVar(&o.file, "kubeconfig", "", "file for --merge and --from (default: KUBECONFIG, or ~/.kube/config)")
	f.BoolVar(&o.force, "force", false, "replace entries and files of others that have the same name")
	f.BoolVar(&o.use, "set-current", false, "with --merge: make the first context the current one")
	f.StringVarP(&o.output, "output", "o", "", "file for the kubeconfig, mode 0600 (default: standard output)")
	completeClusterFlag(cmd)
	completeWords(cmd, "mode", string(kubeconfig.ModePath), string(kubeconfig.ModeSNI), string(kubeconfig.ModePassthrough), string(kubeconfig.ModeEndToEnd))
	completeWords(cmd, "access", string(kubeconfig.AccessTunnel), string(kubeconfig.AccessDirect), string(kubeconfig.AccessAuto), accessBoth)
	return cmd
}

// check names everything that is wrong with the flags.
func (o *kubeconfigOptions) check() error {
	var problems []error
	add := func(bad bool, text string) {
		if bad {
			problems = append(problems, errors.New(text))
		}
	}
	if _, err := kubeconfig.ParseMode(o.mode); err != nil {
		problems = append(problems, fmt.Errorf("--%w", err))
	}
	if _, err := kubeconfig.ParseAccess(o.access); err != nil && o.access != accessBoth {
		problems = append(problems, fmt.Errorf("--%w, or both", err))
	}
	add(len(o.clusters) == 0 && !o.all, "give the name of a cluster, or --all")
	add(len(o.clusters) > 0 && o.all, "--all: leave it out with names of clusters")
	add(o.name != "" && (o.all || len(o.clusters) != 1), "--name: is for one cluster")
	add(o.wait < 0 || o.wait > 2*time.Minute, "--wait: want at most 2m")
	add(o.rotate && o.tokenRequest == "", "--rotate: is for --token-request")
	add(o.tokenRequest != "" && o.from != "" && !o.foreign(), "--from: leave it out with --token-request, which is the user")
	add(o.embedToken && (o.from != "" || o.tokenRequest != "" || o.foreign()), "--embed-token: is for your own token in the modes path and sni")
	add(o.foreign() && o.from == "" && o.tokenRequest == "", "--from, --token-request: in this mode the cluster itself authenticates you: give a context that has your user there, or a service account")
	add(o.proxyURL != "" && o.mode != string(kubeconfig.ModeEndToEnd), "--proxy-url: is for --mode end-to-end")
	add(o.merge && o.output != "", "--output: leave it out with --merge; --kubeconfig names the file")
	add(!o.merge && o.use, "--set-current: is for --merge")
	add(!o.merge && o.file != "" && o.from == "", "--kubeconfig: is for --merge and --from")
	return cli.Usage(errors.Join(problems...))
}

func (o *kubeconfigOptions) foreign() bool { return kubeconfig.Mode(o.mode).Foreign() }

func (o *kubeconfigOptions) run(cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, say := cmd.Context(), cmd.ErrOrStderr()
	hub, err := o.caller.open(say)
	if err != nil {
		return err
	}
	defer hub.close()
	warnInsecure(hub.profile, say)
	maker := &entryMaker{o: o, hub: hub}
	if err := maker.prepare(); err != nil {
		return err
	}
	entries, err := o.collect(ctx, maker, say)
	if err != nil {
		return err
	}
	return o.deliver(ctx, cmd.OutOrStdout(), say, entries)
}

// collect makes the entries and tries each. With --all, a cluster that is not ready is
// told about and left out.
func (o *kubeconfigOptions) collect(ctx context.Context, maker *entryMaker, say io.Writer) ([]kubeconfig.Entry, error) {
	clusters := o.clusters
	if o.all {
		var err error
		if clusters, err = maker.hub.clusters(ctx); err != nil {
			return nil, err
		}
		if len(clusters) == 0 {
			return nil, errors.New("--all: the hub has no cluster that you may reach")
		}
	}
	var entries []kubeconfig.Entry
	for _, cluster := range clusters {
		stop := progress(say, "verifying the way to "+cluster)
		made, err := maker.make(ctx, cluster)
		if err == nil {
			err = tryEntries(ctx, made)
		}
		stop()
		if err != nil {
			err = fmt.Errorf("cluster %s: %w", cluster, err)
			if !o.all || ctx.Err() != nil {
				return nil, err
			}
			fmt.Fprintf(say, "left out: %s\n", printable(exitcode.Text(err)))
			continue
		}
		for _, e := range made {
			fmt.Fprintf(say, "%s: %s, %s\n", e.Name, printable(e.Server), describe(e.Info))
		}
		entries = append(entries, made...)
	}
	if len(entries) == 0 {
		return nil, &exitcode.Error{Code: exitcode.Unavailable, Err: errors.New("no cluster is ready: nothing is written")}
	}
	return entries, nil
}

func describe(info kubeconfig.Info) string {
	if info.Access == kubeconfig.AccessDirect {
		return "direct, verified"
	}
	return fmt.Sprintf("by the tunnel (%s), verified", info.Mode)
}

// tryEntries makes a request with the bytes of each entry.
func tryEntries(ctx context.Context, entries []kubeconfig.Entry) error {
	for _, e := range entries {
		text, err := kubeconfig.Encode(e)
		if err != nil {
			return err
		}
		if err := kubeconfig.Check(ctx, text, e.Name); err != nil {
			return err
		}
	}
	return nil
}

// deliver writes the entries to where they are wanted.
func (o *kubeconfigOptions) deliver(ctx context.Context, out, say io.Writer, entries []kubeconfig.Entry) error {
	if o.merge {
		changed, err := kubeconfig.Merge(ctx, entries, kubeconfig.MergeOptions{File: o.file, Force: o.force, Use: o.use})
		if err != nil {
			return err
		}
		if len(changed) == 0 {
			fmt.Fprintln(say, "everything was there already")
			return nil
		}
		fmt.Fprintf(say, "changed: %s\n", strings.Join(changed, ", "))
		return nil
	}
	text, err := kubeconfig.Encode(entries...)
	if err != nil {
		return err
	}
	if o.output == "" || o.output == "-" {
		_, err := out.Write(text)
		return err
	}
	if !o.force {
		if err := replaceable(o.output); err != nil {
			return err
		}
	}
	return kubeconfig.WriteFile(o.output, text, kubeconfig.Secret(entries))
}

// replaceable refuses a file that has more in it than what a hub gave.
func replaceable(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	ours, err := kubeconfig.Ours(text)
	if err != nil {
		return fmt.Errorf("--output: %s: %w; --force replaces it", path, err)
	}
	if !ours {
		return fmt.Errorf("--output: %s has entries that would be lost: add to it with --merge --kubeconfig, or replace it with --force", path)
	}
	return nil
}
