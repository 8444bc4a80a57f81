package kube

import (
	"context"
	"errors"
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
	// Everything here is local; a proxy of the environment cannot reach it.
	if err := errors.Join(os.Setenv("NO_PROXY", "*"), os.Setenv("no_proxy", "*")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// prepare builds what the tests run, while there is a network to get modules from.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "bash", "curl", "unshare:util-linux", "mount"); err != nil {
		return err
	}
	if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	// Races in the processes are looked for when races in the tests are.
	var flags []string
	if raceDetector() {
		flags = append(flags, "-race")
	}
	if _, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, flags...); err != nil {
		return err
	}
	root, err := testbed.Root()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, "e2e"), "-o", filepath.Join(dir, "demo"), "./cmd/demo")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the demo: %w", err)
	}
	return nil
}

// raceDetector tells whether the tests were built with it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// binaries are those that prepare built.
func binaries() testbed.Culvert {
	bin := filepath.Join(testbed.Dir(), "bin")
	return testbed.Culvert{
		Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert"),
	}
}

// within is a context for one test that ends after d, well before the timeout of
// the whole run, so that a failure says what was waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
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

// tempDir is a folder of the test with a short path, fit for Unix sockets:
// t.TempDir would put the test's name into it.
func tempDir(t *testing.T, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern) //nolint:usetesting // see above
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
