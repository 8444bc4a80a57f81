//go:build !unix

package tlsio

import "net"

// ahead needs file descriptors that can be read without blocking.
type ahead struct{}

func newAhead(net.Conn) *ahead { return nil }

// read is never called: there is no ahead.
func (*ahead) read([]byte) (int, error) { return 0, net.ErrClosed }
