//go:build unix

package buffer

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Socket reads a connection into pooled buffers, each taken only when bytes have
// arrived: while it waits it holds none. One goroutine at a time. Deadlines and
// Close of the connection end a Read as they end the connection's own.
type Socket struct {
	conn net.Conn
	raw  syscall.RawConn
	fill func(fd uintptr) bool // made once, so that no Read allocates

	size int
	got  *[]byte
	err  error
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
	s.fill = s.fillFrom
	return s
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
		local, remote := s.conn.LocalAddr(), s.conn.RemoteAddr()
		s.err = &net.OpError{Op: "read", Net: remote.Network(), Source: local, Addr: remote, Err: os.NewSyscallError("read", err)}
	}
	return true
}
