package testbed

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Isolate(func(ctx context.Context, _ string) error {
		_, err := ServerBinaries(ctx, os.Stderr)
		_, sshErr := OpenSSH(ctx, os.Stderr)
		_, sqlErr := PostgreSQL(ctx, os.Stderr)
		return errors.Join(err, sshErr, sqlErr, Need(ctx, os.Stderr, SquidPackage))
	})
	goleak.VerifyTestMain(m)
}

// within is a context for one test that ends after d, well before the timeout of
// the whole run, so that a failure says what was waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// startBed returns a bed that ends with the test.
func startBed(ctx context.Context, t *testing.T) *Bed {
	t.Helper()
	servers, err := ServerBinaries(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	// t.TempDir would put the test's name into the path of a Unix socket.
	dir, err := os.MkdirTemp("", "bed-")
	if err != nil {
		t.Fatal(err)
	}
	bed, err := New(ctx, Config{Dir: dir, Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Errorf("close the bed: %v", err)
		}
	})
	return bed
}
