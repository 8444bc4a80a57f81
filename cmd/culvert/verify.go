package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/route"
)

// verifyTime bounds one step.
const verifyTime = 45 * time.Second

// The states of a step.
const (
	stepOK      = "ok"
	stepFailed  = "failed"
	stepSkipped = "skipped"
)

// step is one thing that culvert verify looks at.
type step struct {
	Step    string `json:"step"`
	Cluster string `json:"cluster,omitempty"`
	State   string `json:"state"`
	// Detail is what was found, or what is wrong; Remedy what to do then.
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// verifyOptions are the flags of culvert verify.
type verifyOptions struct {
	caller callerFlags
	output outputFlag
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [CLUSTER]",
		Short: "Test the way to the hub and to a cluster, step by step",
		Long: `Test the way to the hub and to a cluster, step by step, with the settings that every
other command takes:
  settings     the hub and the credential are named
  dns          the hub's name has an address
  tls          the hub proves its name: chain, names and end of its certificate
  login        the hub knows you
  clusters     the cluster is one of yours and has an agent
  round trip   a message to the agent and its API server, and back
  kubeconfig   what the hub gives for kubectl leads to this hub, and works

Without CLUSTER the last two are made with every cluster that is connected. Each step
says ok or failed, and what to do. After a failure those that need it are skipped, and
the exit code is that of the first failure.`,
		Example: `  culvert verify
  culvert verify edge-1
  culvert verify edge-1 --output json`,
		ValidArgsFunction: completeClusters(1),
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return o.output.check()
			case 1:
				return errors.Join(route.CheckCluster(args[0]), o.output.check())
			default:
				return errors.New("want at most one argument, the cluster")
			}
		},
		RunE: o.run,
	}
	o.caller.bind(cmd)
	o.caller.bindInsecure(cmd)
	o.output.bind(cmd)
	return cmd
}

func (o *verifyOptions) run(cmd *cobra.Command, args []string) error {
	v := &verifier{say: cmd.ErrOrStderr(), steps: []step{}, each: func(step) {}}
	if len(args) > 0 {
		v.cluster = args[0]
	}
	people := o.output.people()
	if people {
		v.each = func(s step) { printStep(cmd.OutOrStdout(), s) }
	}
	v.verify(cmd, &o.caller)
	if !people {
		if err := o.output.print(cmd.OutOrStdout(), v.steps, nil); err != nil {
			return err
		}
	}
	return v.err
}

// printStep is a step for people.
func printStep(w io.Writer, s step) {
	name := s.Step
	if s.Cluster != "" {
		name += " " + s.Cluster
	}
	fmt.Fprintf(w, "%-8s%-20s %s\n", s.State, printable(name), printable(s.Detail))
	if s.Remedy != "" {
		fmt.Fprintf(w, "%-8s%-20s %s\n", "", "", s.Remedy)
	}
}

// verifier makes the steps.
type verifier struct {
	cluster string
	say     io.Writer
	steps   []step
	each    func(step) // is told of each as it is done
	err     error      // of the first that failed
}

// do makes one step, unless one has failed that it needs.
func (v *verifier) do(ctx context.Context, name, cluster, remedy string, test func(ctx context.Context) (detail string, err error)) bool {
	s := step{Step: name, Cluster: cluster, State: stepOK}
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	var err error
	if s.Detail, err = test(ctx); err != nil {
		s.State, s.Detail, s.Remedy = stepFailed, err.Error(), remedy
		if v.err == nil {
			v.err = fmt.Errorf("%s: %w", strings.TrimSpace(name+" "+cluster), err)
		}
	}
	v.steps = append(v.steps, s)
	v.each(s)
	return err == nil
}

// skip says that steps were not made.
func (v *verifier) skip(names ...string) {
	for _, name := range names {
		s := step{Step: name, Cluster: "", State: stepSkipped}
		v.steps = append(v.steps, s)
		v.each(s)
	}
}

// The steps, in order.
const (
	stepSettings   = "settings"
	stepDNS        = "dns"
	stepTLS        = "tls"
	stepLogin      = "login"
	stepClusters   = "clusters"
	stepRoundTrip  = "round trip"
	stepKubeconfig = "kubeconfig"
)

func (v *verifier) verify(cmd *cobra.Command, flags *callerFlags) {
	ctx := cmd.Context()
	var c *client.Client
	var hub *hubCaller
	if !v.do(ctx, stepSettings, "", "name the hub and a credential: culvert verify --help has the flags", func(context.Context) (_ string, err error) {
		if c, err = openClient(cmd, flags, &said{to: &lines{w: v.say}}, atOnce); err != nil {
			return "", err
		}
		if hub, err = flags.open(v.say); err != nil {
			return "", errors.Join(err, c.Close())
		}
		return c.Hub(), nil
	}) {
		v.skip(stepDNS, stepTLS, stepLogin, stepClusters, stepRoundTrip, stepKubeconfig)
		return
	}
	defer func() {
		hub.close()
		if err := c.Close(); v.err == nil {
			v.err = err
		}
	}()
	if !v.do(ctx, stepDNS, "", "check the hub's name, and the DNS of this machine", func(ctx context.Context) (string, error) { return findHub(ctx, c.Hub()) }) {
		v.skip(stepTLS, stepLogin, stepClusters, stepRoundTrip, stepKubeconfig)
		return
	}
	if !v.do(ctx, stepTLS, "", "check that the hub runs at that address, and that --hub-ca has the CA of its certificate", func(ctx context.Context) (string, error) { return shakeHands(ctx, hub) }) {
		v.skip(stepLogin, stepClusters, stepRoundTrip, stepKubeconfig)
		return
	}
	if !v.do(ctx, stepLogin, "", "get another credential: the hub does not take this one", func(ctx context.Context) (string, error) { return whoAmI(ctx, c) }) {
		v.skip(stepClusters, stepRoundTrip, stepKubeconfig)
		return
	}
	var names []string
	if !v.do(ctx, stepClusters, v.cluster, "culvert clusters list prints those of the hub; a cluster needs a connected agent, whose log says why it is not", func(ctx context.Context) (detail string, err error) {
		names, detail, err = findClusters(ctx, c, v.cluster)
		return detail, err
	}) || len(names) == 0 {
		v.skip(stepRoundTrip, stepKubeconfig)
		return
	}
	for _, name := range names {
		v.do(ctx, stepRoundTrip, name, "see the agent's log: the hop that the error names is the one that fails", func(ctx context.Context) (string, error) {
			return roundTrip(ctx, c, name)
		})
		v.do(ctx, stepKubeconfig, name, "see docs/kubeconfig.md: the hub gives a kubeconfig once it has verified the way itself", func(ctx context.Context) (string, error) {
			return tryKubeconfig(ctx, hub, flags, name)
		})
	}
}
