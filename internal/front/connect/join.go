package connect

import (
	"io"
	"net"
	"net/http"

	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// join answers 200 and carries bytes until both directions have ended.
func (h *Handler) join(w http.ResponseWriter, r *http.Request, s *front.Session, stream *mux.Session) {
	if r.ProtoMajor == 1 {
		h.joinConnection(w, r, s, stream)
		return
	}
	h.joinStream(w, r, s, stream)
}

// joinConnection takes the client's connection over from the server. The answer is
// written by hand, since net/http would add fields to it: a 200 to CONNECT has
// neither Content-Length nor Transfer-Encoding (RFC 9110 section 9.3.6).
func (h *Handler) joinConnection(w http.ResponseWriter, r *http.Request, s *front.Session, stream *mux.Session) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		stream.Reset(wire.CodeCanceled, wire.HopClient, "the client's connection cannot be taken over")
		h.logEnd(r, s, splice.Result{Err: err})
		return
	}
	client := &connection{Conn: conn, early: early(buffered.Reader)}
	defer client.Close() //nolint:errcheck // for a panic; otherwise it is closed already
	version := "HTTP/1.1"
	if !r.ProtoAtLeast(1, 1) {
		version = "HTTP/1.0" // what older SPICE clients speak
	}
	if _, err := io.WriteString(conn, version+" 200 Connection established\r\n\r\n"); err != nil {
		stream.Reset(wire.CodeCanceled, wire.HopClient, "the client went away before it was answered")
		h.logEnd(r, s, splice.Result{Err: err})
		return
	}
	h.logEnd(r, s, splice.Join(client, stream, wire.HopHub))
}

// early returns what the server has read of the client's bytes after the head.
func early(r interface {
	Buffered() int
	Peek(n int) ([]byte, error)
}) []byte {
	ahead, err := r.Peek(r.Buffered())
	if err != nil {
		return nil // cannot be: so much is there
	}
	return append([]byte(nil), ahead...)
}

// connection is the connection of an HTTP/1 client.
type connection struct {
	net.Conn

	early []byte // of whoever reads
}

var _ splice.Conn = (*connection)(nil)

// Read gives what was sent early first.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		c.early = nil
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// CloseWrite ends the sending direction, by close_notify where there is TLS.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// NetConn returns the connection below, for who resets it.
func (c *connection) NetConn() net.Conn { return c.Conn }

// joinStream carries the bytes of an HTTP/2 stream, in its DATA frames.
func (h *Handler) joinStream(w http.ResponseWriter, r *http.Request, s *front.Session, stream *mux.Session) {
	client := &h2Stream{body: r.Body, w: w, control: http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	if err := client.control.Flush(); err != nil {
		stream.Reset(wire.CodeCanceled, wire.HopClient, "the client went away before it was answered")
		h.logEnd(r, s, splice.Result{Err: err})
		return
	}
	result := client.join(r.Context(), stream)
	h.logEnd(r, s, result)
	if result.Err != nil {
		panic(http.ErrAbortHandler) // RST_STREAM: the end must not look like END_STREAM
	}
}
