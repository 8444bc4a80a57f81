package credential

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// The modes of files and folders that are their owner's alone.
const (
	ModeFile fs.FileMode = 0o600
	ModeDir  fs.FileMode = 0o700
)

// WriteFile replaces a file by a rename, mode 0600: who reads it finds the old text or
// the new one. Writers that must not lose what another wrote take a lock of package filelock.
func WriteFile(path string, text []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".culvert.*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		if rmErr := os.Remove(file.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}

// Private tells whether a file is a regular one that nobody but its owner, who runs this,
// may read or write.
func Private(info fs.FileInfo) bool { return info.Mode().IsRegular() && private(info) }
