//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package credential

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// lockRetry is how often a lock is tried.
const lockRetry = 5 * time.Millisecond

// Lock takes a lock on a file, which it makes, until unlock is called or the process
// ends.
func Lock(ctx context.Context, path string) (unlock func() error, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, ModeFile)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return file.Close, nil // which unlocks
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, file.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: errors.New("another process has it and did not end")}, file.Close())
		}
	}
}

// private tells whether nobody else may read or write a file.
func private(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o077 == 0 && ok && int(owner.Uid) == os.Geteuid()
}
