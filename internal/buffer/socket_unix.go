//go:build unix

package buffer

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Socket is a connection used by its descriptor. It reads into pooled buffers,
// each taken only when bytes have arrived: while it waits it holds none. One
// goroutine at a time may read, and one write. Deadlines and Close of the
// connection end a Read as they end the connection's own.
type Socket struct {
	conn net.Conn
	raw  syscall.RawConn

	fill func(fd uintptr) bool // made once, so that no Read allocates
	size int
	got  *[]byte
	err  error

	put     func(fd uintptr) bool // made once, too
	out     []byte
	written int
	failed  error
}

// NewSocket returns nil for a connection without a file descriptor that can be
// waited for. The connection stays the caller's.
func NewSocket(c net.Conn) *Socket {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil // closed; the connection's own Read says so
	}
	s := &Socket{conn: c, raw: raw}
	s.fill, s.put = s.fillFrom, s.putInto
	return s
}

// TryWrite writes as much of p as the connection takes at once, and returns how
// much that was. It never waits. An error of the socket is told, since the socket does so
// once; of those of the connection itself, as after Close, Write of the connection tells,
// which the caller uses for the rest.
func (s *Socket) TryWrite(p []byte) (int, error) {
	s.out, s.written, s.failed = p, 0, nil
	if s.raw.Write(s.put) != nil {
		s.written, s.failed = 0, nil
	}
	s.out = nil
	return s.written, s.failed
}

// putInto writes to a descriptor that does not block. It always reports true, so
// that nobody waits.
func (s *Socket) putInto(fd uintptr) bool {
	n, err := syscall.Write(int(fd), s.out)
	switch {
	case err == nil:
		s.written = n
	case !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR):
		s.failed = s.opError("write", err)
	}
	return true
}

// Read waits for bytes and returns at most size of them, at least one, in a
// buffer of [Pool] that the caller owns. It returns io.EOF at the end.
func (s *Socket) Read(size int) (*[]byte, error) {
	s.size, s.got, s.err = size, nil, nil
	if err := s.raw.Read(s.fill); err != nil {
		return nil, err
	}
	got := s.got
	s.got = nil
	return got, s.err
}

// fillFrom reads from a descriptor that does not block. It reports false when
// there is nothing yet.
func (s *Socket) fillFrom(fd uintptr) bool {
	buf := Pool().Get(s.size)
	n, err := syscall.Read(int(fd), *buf)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), *buf)
	}
	if n > 0 {
		*buf = (*buf)[:n]
		s.got = buf
		return true
	}
	Pool().Put(buf)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false
	case err == nil:
		s.err = io.EOF
	default:
		s.err = s.opError("read", err)
	}
	return true
}

// opError is what the connection's own call would say.
func (s *Socket) opError(op string, err error) error {
	local, remote := s.conn.LocalAddr(), s.conn.RemoteAddr()
	return &net.OpError{Op: op, Net: remote.Network(), Source: local, Addr: remote, Err: os.NewSyscallError(op, err)}
}
