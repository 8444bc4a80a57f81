package filelock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// variable makes the test's own program the other process, which holds the lock of the
// file that it names until its standard input ends.
const variable = "CULVERT_TEST_HOLD_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(variable); path != "" {
		os.Exit(hold(path))
	}
	goleak.VerifyTestMain(m)
}

// hold is the other process.
func hold(path string) int {
	unlock, err := Lock(context.Background(), path)
	if err != nil {
		return 1
	}
	if _, err := os.Stdout.WriteString("held"); err != nil {
		return 2
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return 3
	}
	if unlock() != nil {
		return 4
	}
	return 0
}

func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var callers sync.WaitGroup
	inside, most := make(chan struct{}, 1), 0
	for range 20 {
		callers.Go(func() {
			unlock, err := Lock(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case inside <- struct{}{}:
			default:
				t.Error("two hold the lock")
			}
			most++
			<-inside
			if err := unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if most != 20 {
		t.Errorf("%d had it", most)
	}
}

func TestAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	other.Env = append(os.Environ(), variable+"="+path)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Lock(ctx, path)
	named, ok := errors.AsType[*fs.PathError](err)
	if !ok || named.Path != path || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := Lock(t.Context(), path)
		if err == nil {
			err = unlock()
		}
		got <- err
	}()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-got, other.Wait()); err != nil {
		t.Error(err)
	}
}

func TestNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "lock")
	if _, err := Lock(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
