package ocm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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

// definitionsVariable is a folder with OCM's CustomResourceDefinitions, to hold the
// objects against a version of one's own.
const definitionsVariable = "CULVERT_OCM_CRDS"

// newest is the module of the newest definitions where no folder has others.
const newest = "open-cluster-management.io/api@v1.1.0"

// prepare builds what the tests run and gets the definitions, outside of the isolated
// network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "chroot:coreutils"); err != nil {
		return err
	}
	if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := testbed.OCMAddonManager(ctx, os.Stderr); err != nil {
		return err
	}
	pinned, err := testbed.OCMResourceDefinitions(ctx, os.Stderr)
	if err != nil {
		return err
	}
	latest, err := newestDefinitions(ctx)
	if err != nil {
		return err
	}
	// Static, as the images have them: the agent runs where there is nothing else.
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return err
	}
	_, err = testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr)
	return errors.Join(err,
		os.Symlink(pinned, filepath.Join(dir, "crds-pinned")),
		os.Symlink(latest, filepath.Join(dir, "crds-newest")))
}

// newestDefinitions returns the folder that is named in the environment, or one that
// lies beside the repository, or that of a module.
func newestDefinitions(ctx context.Context) (string, error) {
	if folder := os.Getenv(definitionsVariable); folder != "" {
		return filepath.Abs(folder)
	}
	root, err := testbed.Root()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(root), "shared", "ocm-crds")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", newest)
	cmd.Dir = filepath.Join(root, "e2e", "bin", "ocm")
	return downloaded(cmd)
}
