// Command culvert-bench measures tunnels side by side: Culvert, the reference, and
// others that a file describes. Run it with --help for its flags.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/culvertdev/culvert/bench/internal/kube"
	"github.com/culvertdev/culvert/bench/internal/measure"
	"github.com/culvertdev/culvert/bench/internal/netem"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

func main() {
	process.Enter(roles())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, pflag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "culvert-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.netem {
		// The program starts over in its namespace, so nothing may be there yet.
		if err := netem.Enter(); err != nil {
			return fmt.Errorf("--netem: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "culvert-bench-")
	if err != nil {
		return fmt.Errorf("scratch folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.netem {
		return lines(ctx, o, dir)
	}
	return local(ctx, o, dir)
}

// local measures over the loopback.
func local(ctx context.Context, o *options, dir string) (err error) {
	side := subject.Side{Host: "127.0.0.1"}
	env, err := subject.NewEnv(dir, side, side)
	if err != nil {
		return err
	}
	service, err := measure.StartService(ctx, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Stop()) }()
	if o.kube {
		server, err := startKube(ctx, env)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
	}
	trials, err := measure.Select(measure.All(), o.only)
	if err != nil {
		return err
	}
	var results report.Results
	r := measure.Run{
		Scale: o.scale(), Trials: trials, Tunnels: o.tunnels, Env: env, Profiles: o.profiles, Progress: os.Stderr,
	}
	err = r.Do(ctx, &results)
	return errors.Join(err, publish(o, &results))
}

// publish prints what there is, also of a run that was cut short.
func publish(o *options, results *report.Results) error {
	rows := results.Rows()
	fmt.Printf("\n%s, %d cores; ratios are to %s\n\n", runtime.Version(), runtime.NumCPU(), o.base())
	if err := report.WriteTable(os.Stdout, rows, results.Failures()); err != nil {
		return err
	}
	if o.out != "" {
		if err := report.WriteJSON(o.out, rows); err != nil {
			return err
		}
	}
	if n := len(results.Failures()); n > 0 {
		return fmt.Errorf("%d trials failed", n)
	}
	return nil
}

func startKube(ctx context.Context, env *subject.Env) (*kube.Server, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	binaries, err := kube.Find(ctx, root, os.Stderr)
	if err != nil {
		return nil, err
	}
	return kube.Start(ctx, binaries, env)
}

// repository returns the nearest folder at or above the working folder that has
// the test bed.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("working folder: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "e2e", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("--kube: no folder above %s holds e2e/go.mod: run from inside the repository", start)
		}
	}
}
