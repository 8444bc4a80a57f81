//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package credential

import (
	"context"
	"io/fs"
)

// lockFile does nothing where there is no flock: processes that find no token at the
// same time get one each.
func lockFile(context.Context, string) (unlock func() error, err error) {
	return func() error { return nil }, nil
}

// private is true where permission bits are made up by the Go library; the cache is in
// the user's own folder.
func private(fs.FileInfo) bool { return true }
