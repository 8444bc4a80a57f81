package splice

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent returns how many bytes the peer of a socket has not acknowledged, 0 where that
// cannot be told.
func unsent(c syscall.Conn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0 // closed
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	if err != nil || failed != nil {
		return 0
	}
	return n
}
