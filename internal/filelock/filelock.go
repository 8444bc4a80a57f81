// Package filelock keeps processes of one machine from changing the same files at the same
// time, on every platform that the Go library [github.com/gofrs/flock] knows: flock on
// Unix, LockFileEx on Windows.
package filelock

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	// retry is how often a lock is tried.
	retry = 5 * time.Millisecond
	// mode is that of the file: its owner's alone.
	mode fs.FileMode = 0o600
	// folderWait is how long Folder waits.
	folderWait = 30 * time.Second
)

// errHeld is the reason where another one did not let go in time.
var errHeld = errors.New("another process has it and did not end")

// Lock takes a lock on a file, which it makes and nobody removes, until unlock is called
// or the process ends. Callers of one process exclude each other, too. The folder has to be
// there. The error is a [*fs.PathError], and wraps the cause of ctx where that ends first.
func Lock(ctx context.Context, path string) (unlock func() error, err error) {
	lock := flock.New(path, flock.SetPermissions(mode))
	_, err = lock.TryLockContext(ctx, retry)
	switch {
	case err == nil:
		return lock.Unlock, nil // which closes the file
	case ctx.Err() != nil:
		err = errors.Join(errHeld, context.Cause(ctx))
	}
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		err = &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return nil, errors.Join(err, lock.Close())
}

// Folder is Lock for what is in a folder. It waits for at most 30 s.
func Folder(dir string) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), folderWait)
	defer cancel()
	return Lock(ctx, filepath.Join(dir, ".lock"))
}
