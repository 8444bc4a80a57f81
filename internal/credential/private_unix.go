//go:build unix

package credential

import (
	"io/fs"
	"os"
	"syscall"
)

// private tells whether nobody else may read or write a file.
func private(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o077 == 0 && ok && int(owner.Uid) == os.Geteuid()
}
