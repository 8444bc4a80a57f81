//go:build !unix

package buffer

import (
	"errors"
	"net"
)

// Socket needs descriptors that can be read without blocking, which this
// platform does not give.
type Socket struct{}

// NewSocket returns nil: use the connection's own Read.
func NewSocket(net.Conn) *Socket { return nil }

// Read is for a Socket that NewSocket made, and there is none.
func (*Socket) Read(int) (*[]byte, error) { return nil, errors.ErrUnsupported }

// TryWrite is for a Socket that NewSocket made, and there is none.
func (*Socket) TryWrite([]byte) (int, error) { return 0, errors.ErrUnsupported }
