package footprint

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	testbed.Isolate(func(ctx context.Context, dir string) error {
		if err := saveTCPLimits(dir); err != nil {
			return err
		}
		if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
			return err
		}
		_, err := testbed.CulvertBinaries(ctx, binDir(dir), os.Stderr)
		return err
	})
	goleak.VerifyTestMain(m)
}

func binDir(dir string) string { return filepath.Join(dir, "bin") }

func TestFootprint(t *testing.T) {
	l := startLab(t)
	testLight(t, l)
	testStalled(t, l)
}

// within is a context for one step that ends after d, well before the timeout of
// the whole run, so that a failure says what was waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test on an error.
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
