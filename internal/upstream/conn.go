package upstream

import (
	"net"
	"sync"
)

// Conn is a connection to a target. It is a [net.TCPConn], with all that one can
// do; where its endpoint is one of several it counts as work there until it is
// closed.
type Conn struct {
	*net.TCPConn

	once  sync.Once
	ended func() // may be nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	defer c.once.Do(func() {
		if c.ended != nil {
			c.ended()
		}
	})
	return c.TCPConn.Close()
}
