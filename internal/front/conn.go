package front

import (
	"net"
	"sync/atomic"

	"github.com/culvertdev/culvert/internal/route"
)

// conn is an accepted connection. Its methods are those of the TCP connection, but
// for what a load balancer said before, and while its kind is not known yet. It
// belongs to the goroutine that makes the handshake until it is handed on.
type conn struct {
	*net.TCPConn

	// remote is where the client is, where a load balancer said so; nil else.
	remote net.Addr
	// ahead was read with the load balancer's header and not given yet. It is empty
	// once a handshake is complete: nobody sends more before an answer.
	ahead []byte
	// keeping collects in hello what is read, for a target that shall get it.
	keeping bool
	hello   []byte
	// hear notes in the crowd that the client has said something; nil once it left.
	hear func()
	// name is the server name that the client asked for, named what it means; nil
	// for agents.
	name  string
	named *Named
	// cut is why the crowd has cut it.
	cut atomic.Pointer[error]
	// muted drops what is written: the hub's TLS has nothing to say.
	muted bool
}

// RemoteAddr implements [net.Conn]: the client's address, not the load balancer's.
func (c *conn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.TCPConn.RemoteAddr()
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (n int, err error) {
	if len(c.ahead) > 0 {
		n = copy(p, c.ahead)
		c.ahead = c.ahead[n:]
	} else {
		if n, err = c.TCPConn.Read(p); n > 0 && c.hear != nil {
			c.hear()
		}
	}
	if c.keeping {
		c.hello = append(c.hello, p[:n]...)
	}
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	if c.muted {
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

// forget ends keeping.
func (c *conn) forget() { c.keeping, c.hello = false, nil }

// Stream is a client's connection for a target of raw bytes.
type Stream struct {
	net.Conn

	// Name is the server name that the client asked for, and Host what it means.
	Name string
	Host route.Host
	// First are bytes of the client that were read already: its ClientHello, where
	// TLS does not end at the hub.
	First []byte
}

// CloseWrite ends the direction to the client.
func (s *Stream) CloseWrite() error {
	half, ok := s.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}

// NetConn returns the connection below, for what a Stream adds nothing to.
func (s *Stream) NetConn() net.Conn { return s.Conn }
