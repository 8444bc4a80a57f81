package tlsio

import (
	"net"

	"github.com/culvertdev/culvert/internal/buffer"
)

// ahead reads as much as has arrived, up to aheadMost. One goroutine at a time.
type ahead struct {
	socket *buffer.Socket
	buf    *[]byte // nil when everything was taken
	rest   []byte  // of buf, not taken yet
}

// newAhead returns nil for a connection that cannot be read that way.
func newAhead(c net.Conn) *ahead {
	socket := buffer.NewSocket(c)
	if socket == nil {
		return nil
	}
	return &ahead{socket: socket}
}

func (a *ahead) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if a.buf == nil {
		buf, err := a.socket.Read(aheadMost)
		if err != nil {
			return 0, err
		}
		a.buf, a.rest = buf, *buf
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if len(a.rest) == 0 {
		buffer.Pool().Put(a.buf)
		a.buf = nil
	}
	return n, nil
}
