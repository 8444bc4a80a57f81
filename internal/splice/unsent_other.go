//go:build !linux

package splice

import "syscall"

// unsent is for a system that tells it.
func unsent(syscall.Conn) int { return 0 }
