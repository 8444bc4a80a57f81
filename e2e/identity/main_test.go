package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	testbed.Isolate(prepare)
	err := errors.Join(
		// Everything here is local; a proxy of the environment cannot reach it.
		os.Setenv("NO_PROXY", "*"), os.Setenv("no_proxy", "*"),
		// Spans leave every process soon: the default is up to five seconds
		// (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
		os.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200"),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(inWorld{m})
}

// prepare builds what the tests run, outside of the isolated network.
func prepare(ctx context.Context, dir string) error {
	if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, buildFlags()...); err != nil {
		return err
	}
	root, err := testbed.Root()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, "e2e"), "-o", filepath.Join(dir, "bin", "provider"), "./identity/provider")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the OpenID provider: %w", err)
	}
	return nil
}

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

// processEnv is added to the environment of Culvert's processes: the race
// detector's runtime else waits a second at the end of each.
func processEnv() []string { return []string{"GORACE=atexit_sleep_ms=0"} }

// the is what the tests share; inWorld makes it before the first test.
var the *world

// inWorld runs the tests between the start and the end of the world.
type inWorld struct{ *testing.M }

func (m inWorld) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if the, err = newWorld(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	code := m.M.Run()
	if err := the.close(); err != nil {
		fmt.Fprintln(os.Stderr, "end:", err)
		return 1
	}
	return code
}

// within is a context for one test that ends after d, so that a failure says what
// was waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// afterwards is a context for what a test puts back at its end, when its own has
// ended.
func afterwards(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// must ends the test at an error of its own scenery.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a program of the test's folder bin to its end.
func run(ctx context.Context, name string, args ...string) (out string, err error) {
	cmd := exec.CommandContext(ctx, bin(name), args...)
	cmd.Env = append(os.Environ(), processEnv()...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("%s %v: %w: %s", name, args, err, text)
	}
	return string(text), nil
}
