package client

import (
	"errors"
	"io"
	"net"

	"github.com/culvertdev/culvert/internal/mux"
)

// Addr is the address of a connection's target. Its network is "tcp" and its text
// host:port, so that what dials once more, as drivers of databases do to cancel a query,
// gets there by the same dialler.
type Addr struct {
	Cluster, Address string
}

// Network returns "tcp".
func (Addr) Network() string { return "tcp" }

// String returns host:port.
func (a Addr) String() string { return a.Address }

// conn is an open connection.
type conn struct {
	*mux.Session

	to Addr
}

var _ interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
} = (*conn)(nil)

// RemoteAddr returns the [Addr] of the target.
func (c *conn) RemoteAddr() net.Addr { return c.to }

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Session.Read(p)
	return n, c.to.explain("read", err)
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Session.Write(p)
	return n, c.to.explain("write", err)
}

// ReadFrom implements [io.ReaderFrom]: it copies r to the connection.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.Session.ReadFrom(r)
	return n, c.to.explain("write", err)
}

// WriteTo implements [io.WriterTo]: it copies the connection to w.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.Session.WriteTo(w)
	return n, c.to.explain("read", err)
}

// explain makes an [*Error] of what a hop says. What the connection itself says stays:
// io.EOF, net.ErrClosed, os.ErrDeadlineExceeded, syscall.EPIPE.
func (a Addr) explain(op string, err error) error {
	if e, ok := errors.AsType[*mux.Error](err); ok {
		return fromMux(op, a.Cluster, a.Address, e)
	}
	return err
}
