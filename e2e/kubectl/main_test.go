package kubectl

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	if err := errors.Join(os.Unsetenv("HTTPS_PROXY"), os.Unsetenv("https_proxy"), os.Unsetenv("HTTP_PROXY"), os.Unsetenv("http_proxy")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// prepare builds what the tests run, while there is a network to get modules from.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "tar", "stty:coreutils", "unshare:util-linux", "mount"); err != nil {
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
	_, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, flags...)
	return err
}

// raceDetector tells whether the tests were built with it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

func TestKubectl(t *testing.T) {
	w := startWorld(t)
	idle := startIdle(t, w)
	t.Run("matrix", func(t *testing.T) { testMatrix(t, w) })
	t.Run("upgrades", func(t *testing.T) { testUpgradesNeedHTTP1(t, w) })
	t.Run("informers", func(t *testing.T) { testInformers(t, w) })
	t.Run("restart", func(t *testing.T) { testRestart(t, w) })
	t.Run("idle", func(t *testing.T) { idle.test(t) })
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

// check reports an error of a cleanup.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
