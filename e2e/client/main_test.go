// Package client tests Go programs that use package client against a real hub, two real
// clusters with an agent each in private networks, and real servers there.
package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	testbed.Isolate(prepare)
	// Everything here is local; a proxy of the environment cannot reach it.
	if err := errors.Join(os.Setenv("NO_PROXY", "*"), os.Setenv("no_proxy", "*")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(inWorld{m})
}

// prepare gets what the tests run, outside of the isolated network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, testbed.SquidPackage); err != nil {
		return err
	}
	_, sqlErr := testbed.PostgreSQL(ctx, os.Stderr)
	_, kubeErr := testbed.ServerBinaries(ctx, os.Stderr)
	_, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, buildFlags()...)
	return errors.Join(sqlErr, kubeErr, err, buildExamples(ctx, dir))
}

// buildExamples builds README's programs as they are.
func buildExamples(ctx context.Context, dir string) error {
	root, err := testbed.Root()
	if err != nil {
		return err
	}
	args := slices.Concat([]string{"build", "-C", filepath.Join(root, "e2e"), "-o", filepath.Join(dir, "bin") + string(filepath.Separator)},
		buildFlags(), []string{"./cmd/examples/..."})
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("README's programs: %w: %s", err, out)
	}
	return nil
}

// the is what the tests share; inWorld makes it before the first test.
var the *world

// inWorld runs the tests between the start and the end of the world.
type inWorld struct{ *testing.M }

func (m inWorld) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
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

// within is a context for one test that ends after d, so that a failure says what was
// waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
