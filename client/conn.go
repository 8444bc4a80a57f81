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

// ReadFromConn is ReadFrom that ends with [syscall.EPIPE] once the target reads no more,
// also while it waits for r, whose read deadline it uses.
func (c *conn) ReadFromConn(r net.Conn) (int64, error) {
	n, err := c.Session.ReadFromConn(r)
	return n, c.to.explain("write", err)
}

// explain makes an [*Error] of what a hop says. What the connection itself says stays:
// io.EOF, net.ErrClosed, os.ErrDeadlineExceeded, syscall.EPIPE.
func (a Addr) explain(op string, err error) error {
	if _, done := errors.AsType[*Error](err); done {
		return err
	}
	if e, ok := errors.AsType[*mux.Error](err); ok {
		return lasting(fromMux(op, a.Cluster, a.Address, e))
	}
	return err
}

// lasting marks the error of a connection that is of no more use. One whose time was over
// somewhere is no deadline of its reader's, who would try again for ever.
func lasting(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		whole := *e
		whole.lasting = true
		return &whole
	}
	return err
}
