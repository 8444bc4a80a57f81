// Package oneport holds the hub's one port: every front end on it at once, told apart
// by the TLS handshake, and what becomes of clients that are broken.
package oneport

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
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
	if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	var flags []string
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = append(flags, "-race")
	}
	_, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, flags...)
	return err
}

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

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

// culvert runs the command line to its end.
func culvert(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, bin("culvert"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("culvert %v: %w: %s", args, err, out)
	}
	return nil
}
