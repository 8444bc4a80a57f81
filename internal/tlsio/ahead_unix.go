//go:build unix

package tlsio

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/culvertdev/culvert/internal/wire"
)

// ahead reads as much as has arrived, up to aheadMost, and takes a buffer for it
// only then. One goroutine at a time.
type ahead struct {
	raw  syscall.RawConn
	conn net.Conn // for addresses in errors
	fill func(fd uintptr) bool

	buf  *[]byte // nil when everything was taken
	rest []byte  // of buf, not taken yet
	err  error   // of the last fill
}

// newAhead returns nil for a connection that has no file descriptor.
func newAhead(c net.Conn) *ahead {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil // closed; the ordinary Read says so
	}
	a := &ahead{raw: raw, conn: c}
	a.fill = a.fillFrom // once, so that no read allocates
	return a
}

func (a *ahead) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if a.buf == nil {
		a.err = nil
		if err := a.raw.Read(a.fill); err != nil {
			return 0, err
		}
		if a.err != nil {
			return 0, a.err
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if len(a.rest) == 0 {
		wire.Pool().Put(a.buf)
		a.buf = nil
	}
	return n, nil
}

// fillFrom reads from a descriptor that does not block. It reports false when
// there is nothing yet.
func (a *ahead) fillFrom(fd uintptr) bool {
	buf := wire.Pool().Get(aheadMost)
	n, err := syscall.Read(int(fd), *buf)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), *buf)
	}
	if n > 0 {
		a.buf, a.rest = buf, (*buf)[:n]
		return true
	}
	wire.Pool().Put(buf)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false
	case err == nil:
		a.err = io.EOF
	default:
		a.err = &net.OpError{
			Op: "read", Net: "tcp", Source: a.conn.LocalAddr(), Addr: a.conn.RemoteAddr(), Err: os.NewSyscallError("read", err),
		}
	}
	return true
}
