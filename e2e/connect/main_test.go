// Package connect tests, against a real hub and a real agent in a private network,
// raw TCP through HTTP CONNECT and WebSocket: who gets where, and who does not.
package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// prepare builds what the tests run, outside of the isolated network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "curl"); err != nil {
		return err
	}
	_, err := testbed.CulvertBinaries(ctx, filepath.Join(dir, "bin"), os.Stderr, buildFlags()...)
	return err
}

// the is what the tests share; inWorld makes it before the first test.
var the *world

// inWorld runs the tests between the start and the end of the world.
type inWorld struct{ *testing.M }

func (m inWorld) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
