package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/culvertdev/culvert/internal/wire"
)

// ConnContext is for [http.Server.ConnContext]: it lets an exchange reset the
// connection of an HTTP/1.0 client, for which a close is the end of the body.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// The optional methods of a connection.
type (
	// resetter is a session of the tunnel.
	resetter interface {
		Reset(code wire.Code, hop wire.Hop, message string)
	}
	// lingerer is a TCP connection.
	lingerer interface{ SetLinger(seconds int) error }
	// wrapper is a TLS connection or one that carries something beside.
	wrapper     interface{ NetConn() net.Conn }
	closeWriter interface{ CloseWrite() error }
)

// abort ends conn in a way that its peer cannot take for an orderly end: neither
// a FIN nor a close_notify is sent.
func abort(conn net.Conn) {
	if conn == nil {
		return
	}
	inner := conn
	for {
		switch c := inner.(type) {
		case resetter:
			c.Reset(wire.CodeConnectionReset, wire.HopUnspecified, "the other side of this stream failed")
		case lingerer:
			// What fails here is a connection that is gone already.
			_ = c.SetLinger(0)
		case wrapper:
			if next := c.NetConn(); next != nil {
				inner = next
				continue
			}
		}
		break
	}
	closeQuietly(inner)
	if inner != conn {
		closeQuietly(conn)
	}
}

// closeQuietly closes what is not used any more: there is nothing left that a
// failure could mean.
func closeQuietly(c io.Closer) { _ = c.Close() }

// closeWrite ends the sending direction of c, or all of c where it has no
// half-close.
func closeWrite(c io.Closer) error {
	if half, ok := c.(closeWriter); ok {
		if err := half.CloseWrite(); !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	return c.Close()
}

// Broken reports whether err says that a connection ended before the answer was
// complete, whoever ended it.
func Broken(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	// net/http has no exported values for these: a pooled connection that ended
	// while it was taken, and the ends of an HTTP/2 connection.
	text := err.Error()
	return text == "http: server closed idle connection" || strings.HasPrefix(text, "http2: ")
}
