//go:build unix

package splice

import (
	"net"
	"syscall"
)

// isGone tells whether the socket of c sends no more: it was reset, or both its directions
// have ended. One whose peer has ended its own direction alone is not gone.
func isGone(c net.Conn) bool {
	tcp, ok := within[socket](c)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false // closed, which is told as such
	}
	// A write of nothing. Control waits for no other, and fails on a closed connection only.
	_ = raw.Control(func(fd uintptr) { _, err = syscall.Write(int(fd), nil) })
	return err != nil
}
