package tunnel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/tlsio"
)

// verdictTime is how long a dialler that cannot write waits for the reason.
const verdictTime = time.Second

// hubConn is the dialler's connection to the hub. In TLS 1.3 the dialler's side
// of the handshake is over before the hub has judged its certificate (RFC 8446
// section 4.4.4, appendix A), so that a refusal arrives as an alert later: on a
// read, while a write that was on its way only finds the connection broken.
type hubConn struct {
	*tlsio.Conn

	shown atomic.Pointer[tls.Certificate] // in the handshake
}

// Read implements [net.Conn].
func (c *hubConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if verdict := c.explain(err); verdict != nil {
		err = verdict
	}
	return n, err
}

// Write implements [net.Conn]. Where it fails because the hub has refused the
// connection, its error says so.
func (c *hubConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil || errors.Is(err, net.ErrClosed) {
		return n, err
	}
	if verdict := c.verdict(); verdict != nil {
		err = verdict
	}
	return n, err
}

// verdict returns the explained alert that the hub sent, or nil. What it reads
// besides is lost, which harms nobody: the connection cannot be written to any
// more.
func (c *hubConn) verdict() error {
	err := c.SetReadDeadline(time.Now().Add(verdictTime))
	var buf [512]byte
	for err == nil {
		_, err = c.Conn.Read(buf[:])
	}
	return c.explain(err)
}

// explain says what an alert of the hub means; it returns nil for an error
// that is none.
func (c *hubConn) explain(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return nil
	}
	what := "the hub ended the connection"
	if strings.Contains(op.Err.Error(), "certificate") {
		what = "the hub refused this agent's certificate"
		if c.ConnectionState().NegotiatedProtocol == ClientProtocol {
			what = "the hub refused this client's certificate"
		}
	}
	return fmt.Errorf("%s, the hub's log says why: %w", what, err)
}
