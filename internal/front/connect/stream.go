package connect

import (
	"context"
	"errors"
	"io"
	"net/http"
	"syscall"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// h2Stream is the stream of an HTTP/2 client: its DATA frames are the bytes. It is
// no [splice.Conn], since the answer ends with the handler and not before.
type h2Stream struct {
	body    io.ReadCloser
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write sends what a session gives, at once.
func (s *h2Stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// join carries bytes until the target's direction has ended, or either side has
// failed. It returns when nothing uses the stream any more.
func (s *h2Stream) join(ctx context.Context, session *mux.Session) (result splice.Result) {
	// The stream's end, whoever ended it, ends a session that waits.
	stop := context.AfterFunc(ctx, func() {
		session.Reset(wire.CodeCanceled, wire.HopClient, "the client ended the stream")
	})
	defer stop()
	up := make(chan int64, 1)
	go s.fromClient(session, up)
	result.BToA, result.Err = session.WriteTo(s)
	if result.Err != nil {
		session.Reset(wire.CodeCanceled, wire.HopClient, "the client's stream failed")
	}
	// Nothing comes from the target any more, and the answer cannot end before the
	// stream does. What was written to the session is still delivered.
	_ = session.Close() // may be closed already
	_ = s.body.Close()  // wakes fromClient
	result.AToB = <-up
	return result
}

// fromClient copies the client's bytes to the session and sends their number. It
// ends with END_STREAM, with the stream or with the session.
func (s *h2Stream) fromClient(session *mux.Session, done chan<- int64) {
	n, err := session.ReadFrom(s.body)
	switch {
	case err == nil:
		_ = session.CloseWrite() // fails on a closed session only
	case errors.Is(err, syscall.EPIPE):
		// The target reads no more; what it still says goes on. A client that could not
		// send the rest might never come to read it.
		_, _ = io.Copy(io.Discard, s.body) // ends with the stream, which join sees to
	default:
		session.Reset(wire.CodeCanceled, wire.HopClient, "the client's stream failed")
	}
	done <- n
}
