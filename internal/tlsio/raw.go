package tlsio

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/culvertdev/culvert/internal/buffer"
)

const (
	// oneRecord is the most plaintext in a TLS record (RFC 8446, section 5.1).
	oneRecord = 16 << 10
	// gatherMost bounds what is kept for one system call, in bytes.
	gatherMost = 256 << 10
	// aheadMost bounds what is read ahead, in bytes.
	aheadMost = 64 << 10
)

// rawConn is the connection below TLS. crypto/tls reads it under one lock and
// writes it under another, a record a call.
type rawConn struct {
	net.Conn

	ahead *ahead // nil until bulk, and where the platform has none

	isBulk    bool
	gathering atomic.Int32 // Writes that gather and have not flushed

	mu      sync.Mutex // guards what follows
	pending *[]byte    // records that are not written yet, in order
	err     error      // why writing failed, for ever
}

// NetConn lets who resets a connection get at the socket.
func (c *rawConn) NetConn() net.Conn { return c.Conn }

func (c *rawConn) bulk() {
	c.isBulk = true
	c.ahead = newAhead(c.Conn)
}

// Read implements [net.Conn].
func (c *rawConn) Read(p []byte) (int, error) {
	if c.ahead == nil {
		return c.Conn.Read(p)
	}
	return c.ahead.read(p)
}

// gather makes Write keep records until flush was called as often.
func (c *rawConn) gather() { c.gathering.Add(1) }

// flush writes what was kept. Where another Write gathers still, some of what it
// has may go along.
func (c *rawConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writePending()
	c.gathering.Add(-1)
	return c.err
}

// Write implements [net.Conn]. No record passes another.
func (c *rawConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil && len(*c.pending)+len(p) > gatherMost {
		c.writePending()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.gathering.Load() == 0:
		return c.Conn.Write(p)
	case c.pending == nil:
		c.pending = buffer.Pool().Get(gatherMost)
		*c.pending = (*c.pending)[:0]
	}
	*c.pending = append(*c.pending, p...)
	return len(p), nil
}

// writePending writes what was kept, in one call. mu is held.
func (c *rawConn) writePending() {
	if c.pending == nil {
		return
	}
	if c.err == nil {
		_, c.err = c.Conn.Write(*c.pending)
	}
	buffer.Pool().Put(c.pending)
	c.pending = nil
}
