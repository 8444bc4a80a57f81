// Package trust tests, against real processes, how a cluster joins a hub, how
// certificates are renewed, replaced and revoked, and what nobody gets away with.
// What an agent behind a proxy sees is tested with a real squid.
package trust

import (
	"bytes"
	"context"
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
	goleak.VerifyTestMain(inWorld{m})
}

// prepare builds what the tests run, outside of the isolated network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "bash", "openssl", testbed.SquidPackage); err != nil {
		return err
	}
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if _, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, buildFlags()...); err != nil {
		return err
	}
	// Commands that people paste have the plain name of kubectl.
	return os.Symlink(servers.Kubectl, filepath.Join(dir, "bin", "kubectl"))
}

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

// processEnv is added to the environment of Culvert's processes: the programs of
// this run first, and no second at the end of each, which the race detector's
// runtime else takes.
func processEnv() []string {
	return []string{"GORACE=atexit_sleep_ms=0", "PATH=" + filepath.Join(testbed.Dir(), "bin") + ":" + os.Getenv("PATH")}
}

// the is what the tests share; inWorld makes it before the first test.
var the *world

// inWorld runs the tests between the start and the end of the world.
type inWorld struct{ *testing.M }

func (m inWorld) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// run runs a program to its end and returns its standard output. An error has
// both outputs in it.
func run(ctx context.Context, name string, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, bin(name), args...)
	cmd.Env = append(os.Environ(), processEnv()...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", name, args[0], err, out.String(), errs.String())
	}
	return out.String(), nil
}
