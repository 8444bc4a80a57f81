package relay

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Exchange is one request and its answer at this hop: an [http.ResponseWriter]
// that counts and remembers what went wrong. It belongs to the handler that
// began it; the methods that report may be called by others while it runs.
type Exchange struct {
	w        http.ResponseWriter
	status   atomic.Int32
	received atomic.Int64
	sent     atomic.Int64
	fault    atomic.Pointer[fault.Error]
	start    time.Time
	panicked atomic.Bool
	// first is when the answer's head was sent, a time.Duration since start, or 0.
	first atomic.Int64
	// cut resets the client's connection; nil where an abort is visible anyway.
	cut func()
}

// Begin starts an exchange. The request it returns has a body that is counted;
// the handler goes on with that one and with the Exchange as its writer.
func Begin(w http.ResponseWriter, r *http.Request) (*Exchange, *http.Request) {
	x := &Exchange{w: w, start: time.Now()}
	// An HTTP/1 server otherwise reads the rest of the request before it sends
	// the answer's head, and two peers that talk in turns wait for ever. A
	// writer that does not know the call is of HTTP/2 or of a test.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		x.Fail(&fault.Error{Hop: wire.HopClient, Op: "read request", Code: wire.CodeConnectionReset, Err: err})
	}
	if !r.ProtoAtLeast(1, 1) {
		x.cut = cutter(r)
	}
	// The server merges unannounced trailers into this map if there is one, so
	// it is made before the request is copied.
	if r.Trailer == nil && r.ContentLength < 0 {
		r.Trailer = http.Header{}
	}
	dropUnusableUpgrade(r)
	// A copy: the server looks at the Body of its own request to decide whether
	// the connection can be used again.
	r = r.WithContext(r.Context())
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &countedBody{ReadCloser: r.Body, x: x}
	}
	return x, r
}

// dropUnusableUpgrade removes an upgrade to HTTP itself: what follows it would be
// requests that no hop looks at, with the identity of the connection instead of
// the caller's. It removes all upgrades from HTTP/2 requests, where the field has
// no meaning (RFC 9113 section 8.2.2).
func dropUnusableUpgrade(r *http.Request) {
	drop := r.ProtoMajor != 1
	for _, value := range r.Header.Values("Upgrade") {
		for token := range strings.SplitSeq(value, ",") {
			token = strings.ToLower(strings.TrimSpace(token))
			drop = drop || token == "h2c" || token == "h2" || strings.HasPrefix(token, "http/")
		}
	}
	if drop {
		r.Header.Del("Upgrade")
		r.Header.Del("HTTP2-Settings")
	}
}

// Header returns the header of the answer.
func (x *Exchange) Header() http.Header { return x.w.Header() }

// WriteHeader sends the answer's head, or an informational one.
func (x *Exchange) WriteHeader(code int) {
	if code >= 200 {
		x.answered(code)
		// A nil value keeps net/http from guessing a type that the target
		// did not name.
		if h := x.w.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil
		}
	}
	x.w.WriteHeader(code)
}

// answered notes the status that is sent first, and when that is.
func (x *Exchange) answered(code int) {
	if x.status.CompareAndSwap(0, int32(code)) {
		x.first.Store(int64(max(time.Since(x.start), 1)))
	}
}

// Write sends a part of the body.
func (x *Exchange) Write(p []byte) (int, error) {
	if x.status.Load() == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.w.Write(p)
	x.sent.Add(int64(n))
	if err != nil {
		x.Fail(clientGone("write answer", err))
	}
	return n, err
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (x *Exchange) Unwrap() http.ResponseWriter { return x.w }

// Status returns the status sent, 101 after an upgrade, or 0 so far.
func (x *Exchange) Status() int { return int(x.status.Load()) }

// Start returns when the exchange began.
func (x *Exchange) Start() time.Time { return x.start }

// FirstByte returns how long after the start the answer's head was sent, or 0 so
// far.
func (x *Exchange) FirstByte() time.Duration { return time.Duration(x.first.Load()) }

// Panicked reports whether [Exchange.Guard] recovered from a panic.
func (x *Exchange) Panicked() bool { return x.panicked.Load() }

// Received returns the bytes read from the client after the head.
func (x *Exchange) Received() int64 { return x.received.Load() }

// Sent returns the bytes written to the client after the head.
func (x *Exchange) Sent() int64 { return x.sent.Load() }

// Fault returns the first failure, or nil.
func (x *Exchange) Fault() *fault.Error { return x.fault.Load() }

// Fail records f unless a failure was recorded before: what follows the first
// one is mostly its consequence.
func (x *Exchange) Fail(f *fault.Error) { x.fault.CompareAndSwap(nil, f) }

// Answer answers with err, see [answer.Write], and records it.
func (x *Exchange) Answer(r *http.Request, err error) {
	x.Fail(answer.Fault(wire.HopHub, "", err))
	if _, err := answer.Write(x, r, err); err != nil {
		x.Fail(clientGone("write answer", err))
	}
}

// Guard runs serve. A panic becomes an internal error of the given hop with its
// stack in the log: an answer 500, or an abort when the answer had begun. The
// panic [http.ErrAbortHandler] passes through to the server, which aborts.
func (x *Exchange) Guard(r *http.Request, hop wire.Hop, log *slog.Logger, serve func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		//nolint:errorlint // The server compares by identity too.
		if v != http.ErrAbortHandler {
			x.panicked.Store(true)
			log.ErrorContext(r.Context(), "panic while serving a request",
				"request_id", answer.RequestID(r.Context()), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			f := &fault.Error{Hop: hop, Op: "serve", Code: wire.CodeInternal, Err: errors.New("panic")}
			x.Fail(f)
			if x.Status() == 0 {
				x.Answer(r, f)
				return
			}
		}
		if x.cut != nil {
			x.cut()
		}
		panic(http.ErrAbortHandler)
	}()
	serve()
}

func clientGone(op string, err error) *fault.Error {
	return &fault.Error{Hop: wire.HopClient, Op: op, Code: wire.CodeCanceled, Err: err}
}

// countedBody counts a request's body and records how the client broke it.
type countedBody struct {
	io.ReadCloser
	x *Exchange
}

// Read reads from the client.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.x.received.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.x.Fail(clientGone("read request", err))
	}
	return n, err
}

type connKey struct{}

// cutter returns what resets the connection of r, or nil when the server has no
// [ConnContext].
func cutter(r *http.Request) func() {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return nil
	}
	return func() { abort(conn) }
}
