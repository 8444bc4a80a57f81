package cli

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

func TestWithReload(t *testing.T) {
	t.Run("D22: SIGHUP reloads while the process runs, and ends nothing", func(t *testing.T) {
		reloaded := make(chan struct{}, 1)
		wanted := errors.New("the end")
		err := WithReload(t.Context(), func() error { reloaded <- struct{}{}; return errors.New("a bad file") }, func(ctx context.Context) error {
			for range 2 {
				if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
					return err
				}
				select {
				case <-reloaded:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return wanted
		})
		if !errors.Is(err, wanted) {
			t.Errorf("%v", err)
		}
	})
}
