//go:build !unix

package splice

import "net"

// isGone is for systems whose sockets tell an error once. Others tell it again.
func isGone(net.Conn) bool { return false }
