//go:build !linux

package admin

import (
	"net"
	"os"
)

// socketAddress returns path itself: other systems have no way around the bound
// on its length, and say so.
func socketAddress(path string) (address string, done func() error, err error) {
	return path, func() error { return nil }, nil
}

// peerUID takes the socket's mode for the answer: only the hub's own user can
// open it.
func peerUID(net.Conn) (int, error) { return os.Getuid(), nil }
