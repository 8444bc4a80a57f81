package rolling

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	testbed.Isolate(func(ctx context.Context, dir string) error {
		if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
			return err
		}
		_, err := testbed.CulvertBinaries(ctx, binDir(dir), os.Stderr)
		return err
	})
	// Everything here is local; a proxy of the environment cannot reach it.
	if err := errors.Join(os.Setenv("NO_PROXY", "*"), os.Setenv("no_proxy", "*")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func binDir(dir string) string { return filepath.Join(dir, "bin") }
