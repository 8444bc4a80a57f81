// Package cli tests the command culvert as people and scripts meet it, against a real
// hub, agent, API server, kubectl and OpenID Connect provider: what it says and its exit
// code when something is wrong, logins, the plugin of kubectl and completion.
package cli

import (
	"bytes"
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
	goleak.VerifyTestMain(inWorld{m})
}

// prepare builds what the tests run, outside of the isolated network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "bash", "script:bsdutils"); err != nil {
		return err
	}
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	provider, err := testbed.OIDCProvider(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if _, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, buildFlags()...); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink(servers.Kubectl, filepath.Join(dir, "bin", "kubectl")), os.Symlink(provider, filepath.Join(dir, "bin", "oidc")),
		// As make build does.
		os.Symlink("culvert", filepath.Join(dir, "bin", "kubectl-culvert")), os.Symlink("culvert", filepath.Join(dir, "bin", "kubectl_complete-culvert")),
	)
}

func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

// the is what the tests share.
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
	if err := errors.Join(the.stop(), the.leaked()); err != nil {
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

// result is what a program has left.
type result struct {
	code           int
	stdout, stderr string
}

// culvert runs the command to its end, with variables added to the environment.
func culvert(ctx context.Context, env []string, args ...string) (result, error) {
	return run(ctx, env, "", "culvert", args...)
}

func run(ctx context.Context, env []string, stdin, name string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, bin(name), args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &errs, bytes.NewReader([]byte(stdin))
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	got := result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	if ctx.Err() != nil {
		return got, fmt.Errorf("%s %q: it did not end: %w: %s", name, args, ctx.Err(), errs.String())
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return got, err
	}
	return got, nil
}

// ok runs the command and fails the test unless it succeeds.
func ok(ctx context.Context, t *testing.T, env []string, args ...string) result {
	t.Helper()
	got, err := culvert(ctx, env, args...)
	if err != nil || got.code != 0 {
		t.Fatalf("culvert %q: %v %+v", args, err, got)
	}
	return got
}
