package websocket

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// controlTimeout bounds how long a ping or a Close may wait behind a message.
const controlTimeout = 5 * time.Second

// peer is a client after its upgrade.
type peer struct {
	conn *websocket.Conn
	// heard is when the client sent something last, as a UnixNano.
	heard atomic.Int64
	// writing tells that a message waits for the client to take it: then its silence
	// means nothing, and TCP finds out whether it is there.
	writing atomic.Bool
	// over tells that the target's bytes have ended and the client was told.
	over atomic.Bool
}

// join carries bytes until either side has ended, and closes both.
func (h *Handler) join(r *http.Request, s *front.Session, conn *websocket.Conn, stream *mux.Session) {
	defer splice.CutIdle(stream, h.cfg.IdleTimeout, wire.HopHub)()
	p := &peer{conn: conn}
	p.hear()
	conn.SetReadLimit(MaxMessage)
	conn.SetPongHandler(func(string) error { p.hear(); return nil })
	// The library's own handlers answer a Ping, and a Close with the same code.
	answerPing := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { p.hear(); return answerPing(data) })

	alive, dead := context.WithCancel(context.Background())
	pinging := make(chan struct{})
	go h.ping(alive, p, stream, pinging)
	down := make(chan int64, 1)
	stream.Pump(p, func(n int64, err error) {
		p.end(err)
		down <- n
	})
	up, err := p.toSession(stream)
	if err != nil {
		reset(stream, err)
	}
	_ = stream.Close() // may be closed already
	dead()
	// A message that waits for the client waits no longer. It is the connection's own
	// deadline, since the library's is not for a write under way.
	_ = conn.NetConn().SetWriteDeadline(time.Now().Add(controlTimeout)) // fails on a closed connection only
	sent := <-down
	<-pinging
	p.linger(err)
	_ = conn.Close() // may be closed already
	h.logEnd(r, s, up, sent, err)
}

func (p *peer) hear() { p.heard.Store(time.Now().UnixNano()) }

// Write sends one message. It waits until the client takes it, and the session's
// credit with it.
func (p *peer) Write(data []byte) (int, error) {
	p.writing.Store(true)
	defer p.writing.Store(false)
	for n := 0; n < len(data); n += messageSize {
		part := data[n:min(n+messageSize, len(data))]
		if err := p.conn.WriteMessage(websocket.BinaryMessage, part); err != nil {
			return n, err
		}
	}
	return len(data), nil
}

// errText is for what is no byte stream.
var errText = errors.New("the client has sent a text message")

// toSession copies the client's messages until it closes. When the target reads no
// more, or the session has failed, they are dropped: what the target has said still goes on.
func (p *peer) toSession(stream *mux.Session) (total int64, err error) {
	var to io.ReaderFrom = stream
	var failed error // of the session
	for {
		kind, message, err := p.conn.NextReader()
		switch {
		case websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived):
			return total, failed
		case err != nil && p.over.Load():
			return total, nil // it had the time to answer the Close
		case err != nil:
			return total, cmp.Or(failed, err)
		case kind != websocket.BinaryMessage:
			p.close(websocket.CloseUnsupportedData, "only binary messages are bytes of the stream")
			return total, errText
		}
		p.hear()
		n, err := to.ReadFrom(heardReader{message, p})
		total += n
		switch {
		case err == nil:
		case errors.Is(err, syscall.EPIPE):
			to = nowhere{}
		case p.over.Load():
			return total, nil
		case failed == nil && errors.Is(err, stream.Err()):
			failed, to = err, nowhere{}
			late := time.AfterFunc(controlTimeout, func() { _ = p.conn.Close() }) // may be closed already
			defer late.Stop()
		default:
			return total, cmp.Or(failed, err)
		}
	}
}

// nowhere takes what the target does not.
type nowhere struct{}

// ReadFrom implements [io.ReaderFrom].
func (nowhere) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// heardReader notes that a long message is still coming.
type heardReader struct {
	io.Reader

	p *peer
}

func (r heardReader) Read(data []byte) (int, error) {
	n, err := r.Reader.Read(data)
	if n > 0 {
		r.p.hear()
	}
	return n, err
}

// end tells the client how the target's bytes have ended, and wakes what waits for
// the client's own.
func (p *peer) end(err error) {
	p.over.Store(err == nil)
	code, reason := closeOf(err)
	p.close(code, reason)
	// The client has controlTimeout to answer the Close.
	_ = p.conn.SetReadDeadline(time.Now().Add(controlTimeout)) // fails on a closed connection only
}

// lingerTime is how long a client that broke the rules may take to see the Close.
const lingerTime = time.Second

// linger reads on after a Close that this side has sent for a message it did not
// take: closing a connection with unread bytes resets it, and the Close is lost.
func (p *peer) linger(err error) {
	if !errors.Is(err, errText) && !errors.Is(err, websocket.ErrReadLimit) {
		return
	}
	conn := p.conn.NetConn()
	if conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, conn) // ends with the client's end or the time
	}
}

// maxReason is the longest reason of a Close, in bytes (RFC 6455 section 5.5).
const maxReason = 123

func (p *peer) close(code int, reason string) {
	message := websocket.FormatCloseMessage(code, reason[:min(len(reason), maxReason)])
	// A client that is gone or takes nothing needs no Close.
	_ = p.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(controlTimeout))
}

// closeOf is how a session's end is told to a client.
func closeOf(err error) (code int, reason string) {
	var broken *mux.Error
	switch {
	case err == nil:
		return websocket.CloseNormalClosure, "the target has closed"
	case !errors.As(err, &broken):
		return websocket.CloseInternalServerErr, "the session has failed"
	}
	switch broken.Code.Known() {
	case wire.CodeDraining, wire.CodeReplaced:
		code = websocket.CloseGoingAway
	case wire.CodePermissionDenied, wire.CodeUnauthenticated, wire.CodeDeadlineExceeded:
		code = websocket.ClosePolicyViolation
	default:
		code = websocket.CloseInternalServerErr
	}
	return code, broken.Hop.String() + ": " + broken.Code.Known().String()
}

// reset ends a session whose client has failed, so that the target does not take it
// for an end.
func reset(stream *mux.Session, err error) {
	code := wire.CodeConnectionReset
	if errors.Is(err, websocket.ErrReadLimit) {
		code = wire.CodeRequestTooLarge
	}
	stream.Reset(code, wire.HopClient, "the client's WebSocket has failed")
}

// ping asks the client whether it is there, until the session has ended, and ends
// the session when it is not.
func (h *Handler) ping(alive context.Context, p *peer, stream *mux.Session, done chan<- struct{}) {
	defer close(done)
	ticker := time.NewTicker(h.cfg.Ping)
	defer ticker.Stop()
	for {
		select {
		case <-alive.Done():
			return
		case <-ticker.C:
		}
		if silent := time.Since(time.Unix(0, p.heard.Load())); silent > 3*h.cfg.Ping && !p.writing.Load() {
			stream.Reset(wire.CodeCanceled, wire.HopClient, "the client does not answer")
			_ = p.conn.Close() // wakes whoever reads
			return
		}
		err := p.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(controlTimeout))
		var timeout net.Error
		if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			return // the connection has ended, which whoever reads notices
		}
	}
}

// logEnd writes the line of a session that was open.
func (h *Handler) logEnd(r *http.Request, s *front.Session, received, sent int64, err error) {
	attrs := append(make([]slog.Attr, 0, 10),
		slog.String("request_id", answer.RequestID(r.Context())),
		slog.String("cluster", s.Cluster),
		slog.String("user", identity.Real(s.Caller.User).GetName()),
		slog.String("target", s.Target.String()),
		slog.Int64("received", received),
		slog.Int64("sent", sent),
		slog.Duration("duration", time.Since(s.Start)),
	)
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "websocket ended", attrs...)
}
