//go:build !linux

package forward

import "syscall"

// ownSocket does nothing: the mode of a socket without a name is not taken over here, and
// that of the file is set right after.
func ownSocket(_, _ string, _ syscall.RawConn) error { return nil }
