package splice

import (
	"net"
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

// socketIn returns the TCP socket that is c or below it, nil where there is none.
func socketIn(c net.Conn) syscall.Conn {
	for {
		if tcp, ok := c.(interface {
			syscall.Conn
			SetLinger(seconds int) error
		}); ok {
			return tcp
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = wrapper.NetConn()
	}
}
