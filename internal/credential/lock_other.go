//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package credential

import (
	"context"
	"io/fs"
)

// Lock does nothing where there is no flock: processes that find no token at the
// same time get one each, and the last of two writers wins.
func Lock(context.Context, string) (unlock func() error, err error) {
	return func() error { return nil }, nil
}

// private is true where permission bits are made up by the Go library; the cache is in
// the user's own folder.
func private(fs.FileInfo) bool { return true }
