package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"strings"
)

// variable names the role in a child's environment.
const variable = "CULVERT_BENCH_ROLE"

// Role is what a child does. It decodes config, calls ready once it serves, and
// returns when ctx ends.
type Role func(ctx context.Context, config []byte, ready func(any) error) error

// As makes a [Role] of a function with a typed configuration.
func As[C any](run func(ctx context.Context, config C, ready func(any) error) error) Role {
	return func(ctx context.Context, text []byte, ready func(any) error) error {
		var config C
		if err := json.Unmarshal(text, &config); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		return run(ctx, config, ready)
	}
}

// Enter runs the role that the environment names and ends the process with it; in
// the parent it returns at once. Call it first in main and TestMain.
func Enter(roles map[string]Role) {
	name, ok := os.LookupEnv(variable)
	if !ok {
		return
	}
	if err := enter(name, roles[name]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func enter(name string, role Role) error {
	if role == nil {
		return fmt.Errorf("no role %q", name)
	}
	if err := os.Unsetenv(variable); err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	in := bufio.NewReader(os.Stdin)
	config, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go follow(in, cancel)
	err = role(ctx, config, func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("tell the parent: %w", err)
		}
		if _, err := os.Stdout.Write(append(text, '\n')); err != nil {
			return fmt.Errorf("tell the parent: %w", err)
		}
		return nil
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

// follow obeys the parent until it closes the child's standard input: a line
// with a path begins a CPU profile, an empty line ends it.
func follow(in *bufio.Reader, cancel context.CancelCauseFunc) {
	var profile *os.File
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			cancel(nil)
			return
		}
		if err == nil {
			profile, err = toggle(profile, strings.TrimSpace(line))
		}
		if err != nil {
			cancel(err)
			return
		}
	}
}

func toggle(running *os.File, path string) (*os.File, error) {
	if path == "" {
		pprof.StopCPUProfile()
		if running == nil {
			return nil, nil
		}
		return nil, running.Close()
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return f, pprof.StartCPUProfile(f)
}
