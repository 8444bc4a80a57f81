// Package charts tests that what the Helm charts render is taken by a real API
// server, and works: the pods' command lines run with the files that their volumes
// have, as the accounts and with the rights that the charts give.
package charts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	testbed.Isolate(prepare)
	goleak.VerifyTestMain(inWorld{m})
}

// prepare builds what the tests run, outside of the isolated network: static
// binaries, as in the images, since nothing else is in the pods' file systems.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "chroot:coreutils"); err != nil {
		return err
	}
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if err := fetchKinds(ctx, filepath.Join(dir, "kinds")); err != nil {
		return err
	}
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return err
	}
	if _, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr); err != nil {
		return err
	}
	return os.Symlink(servers.Kubectl, filepath.Join(dir, "bin", "kubectl"))
}

func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

// the is what the tests share.
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
	err = the.stop()
	if err == nil && code == 0 {
		err = the.leaked()
	}
	if err != nil {
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

// manifests runs culvert manifests with values on its standard input.
func manifests(ctx context.Context, chart, values string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin("culvert"), append([]string{"manifests", chart, "--values", "-"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(values), &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("culvert manifests %s: %w: %s", chart, err, errs.String())
	}
	return out.String(), nil
}

// apply applies objects on the server's side. A warning of the API server is an
// error.
func apply(ctx context.Context, c *testbed.Cluster, objects string, args ...string) error {
	cmd := c.Admin().Command(ctx, append([]string{"apply", "--server-side", "-f", "-"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(objects), &out, &errs
	if err := c.Namespace.Run(cmd); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, errs.String())
	}
	if errs.Len() > 0 {
		return fmt.Errorf("kubectl apply: %w: %s", errWarned, errs.String())
	}
	return nil
}

// errWarned says that the API server, or kubectl, has something against an object.
var errWarned = errors.New("there are warnings")

// restricted makes a namespace that takes pods by the standard restricted alone, and
// warns about workloads that would make others.
func restricted(ctx context.Context, c *testbed.Cluster, name string) error {
	return apply(ctx, c, `apiVersion: v1
kind: Namespace
metadata:
  name: `+name+`
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
`)
}
