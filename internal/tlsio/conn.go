package tlsio

import (
	"crypto/tls"
	"errors"
	"net"
)

// Conn is a TLS connection. Until Bulk is called it works as crypto/tls alone
// does. Its methods are safe for concurrent use, as those of [tls.Conn] are.
type Conn struct {
	*tls.Conn

	raw *rawConn
}

// Server returns the server's side of TLS on raw, which it takes over. The
// handshake is the caller's to start.
func Server(raw net.Conn, cfg *tls.Config) *Conn {
	r := &rawConn{Conn: raw}
	return &Conn{Conn: tls.Server(r, cfg), raw: r}
}

// Client returns the client's side of TLS on raw, which it takes over. The
// handshake is the caller's to start.
func Client(raw net.Conn, cfg *tls.Config) *Conn {
	r := &rawConn{Conn: raw}
	return &Conn{Conn: tls.Client(r, cfg), raw: r}
}

// Bulk makes the connection gather what it writes and read ahead. It is called
// at most once, before the first Read or Write.
func (c *Conn) Bulk() { c.raw.bulk() }

// Write implements [net.Conn]: p becomes as many records as it needs, and one
// system call for all of them.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) <= oneRecord || !c.raw.isBulk {
		return c.Conn.Write(p)
	}
	if err := c.Handshake(); err != nil { // its messages must not be kept
		return 0, err
	}
	c.raw.gather()
	n, err := c.Conn.Write(p)
	if ferr := c.raw.flush(); err == nil && ferr != nil {
		return 0, ferr
	}
	return n, err
}

// Close implements [net.Conn]. Like that of [tls.Conn] it does not wait for a
// Write that is stuck.
func (c *Conn) Close() error {
	if c.raw.gathering.Load() == 0 {
		return c.Conn.Close()
	}
	err := c.raw.Close()
	if cerr := c.Conn.Close(); err == nil && !errors.Is(cerr, net.ErrClosed) {
		err = cerr
	}
	return err
}
