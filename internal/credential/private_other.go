//go:build !unix

package credential

import "io/fs"

// private is true where permission bits are made up by the Go library; the cache is in
// the user's own folder.
func private(fs.FileInfo) bool { return true }
