package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

const (
	modeFile = 0o600
	modeDir  = 0o700
)

// WriteFile puts a file in the place of another, so that a reader sees the old or
// the new content and nothing between. Only its owner may read a new file; one that
// was there keeps its mode, of which secret leaves the owner's part alone, and a link
// leads to the same file as before. The folder is made where it is missing.
func WriteFile(path string, text []byte, secret bool) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	mode := fs.FileMode(modeFile)
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("write %s: not a regular file", path)
	case err == nil:
		mode = info.Mode().Perm()
		if secret {
			mode &= modeDir
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), modeDir); err != nil {
		return err
	}
	return replace(path, text, mode)
}

func replace(path string, text []byte, mode fs.FileMode) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	file, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil && runtime.GOOS != "windows" {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		if rmErr := os.Remove(file.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readFile returns the content of a file; nil where there is none.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, MaxFile)
	}
	return text, nil
}

// lockWait is how long a file may be locked by another program.
const lockWait = 20 * time.Second

// lockRetry is how often a lock is tried.
const lockRetry = 10 * time.Millisecond

// lock takes the lock that client-go takes when it changes a kubeconfig (function
// ModifyConfig of clientcmd): a file FILE.lock that is made and removed.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(path), modeDir); err != nil {
		return nil, err
	}
	name := path + ".lock"
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, modeFile)
		if err == nil {
			return func() error { return os.Remove(name) }, file.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is locked: %s exists: another program changes it or was killed while it did; "+
				"when none runs, remove that file", path, name)
		}
	}
}

// lockAll locks files in the order in which client-go does, so that two who lock
// several never wait for each other.
func lockAll(ctx context.Context, paths []string) (unlock func() error, err error) {
	var held []func() error
	unlock = func() error {
		var errs []error
		for _, one := range slices.Backward(held) {
			errs = append(errs, one())
		}
		return errors.Join(errs...)
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		one, err := lock(ctx, path)
		if err != nil {
			return nil, errors.Join(err, unlock())
		}
		held = append(held, one)
	}
	return unlock, nil
}
