package splice

import (
	"net"
	"syscall"
	"unsafe"
)

// unsent returns how many bytes the peer of a socket has not acknowledged, 0 where that
// cannot be told.
func unsent(c syscall.Conn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0 // closed
	}
	var n int32
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // where the kernel puts the number
	})
	if err != nil || failed != 0 {
		return 0
	}
	return int(n)
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
