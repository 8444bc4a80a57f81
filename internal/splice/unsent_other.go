//go:build !linux

package splice

import (
	"net"
	"syscall"
)

// unsent is for a system that tells it.
func unsent(syscall.Conn) int { return 0 }

// socketIn is for unsent.
func socketIn(net.Conn) syscall.Conn { return nil }
