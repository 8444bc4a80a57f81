package mux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/buffer"
	"github.com/culvertdev/culvert/internal/wire"
)

// Request describes a session to open.
type Request struct {
	Target wire.Target
	// Payload is the first bytes of the stream, which travel with the open. It
	// is copied. It must not be longer than MaxFirst, nor than the initial window
	// of the peer.
	Payload []byte
	// Trace is a W3C traceparent, or empty.
	Trace string
	// RequestID names the request in the logs of every hop.
	RequestID string
	// Cluster is where the target is, where the peer is a hub.
	Cluster string
}

// maxCluster is the longest Request.Cluster, in bytes: that of a DNS label.
const maxCluster = 63

// MaxFirst is the longest Request.Payload, in bytes.
const MaxFirst = 4 << 10

// Open opens a session and waits until the peer has connected it. The deadline
// of ctx travels with the open. When ctx ends first, the session is cancelled at
// the peer. A refusal or the end of the link is an [*Error]; its field Refused
// tells that another link may be tried.
func (l *Link) Open(ctx context.Context, r Request) (*Session, error) {
	s, err := l.Start(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.Wait(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Start sends the open without waiting for the peer's answer. The session can
// be written to at once; Read fails if the peer refuses. It waits for the
// peer's HELLO only.
func (l *Link) Start(ctx context.Context, r Request) (*Session, error) {
	if len(r.Payload) > MaxFirst {
		return nil, fmt.Errorf("first bytes of %d where %d are allowed", len(r.Payload), MaxFirst)
	}
	peer, err := l.Peer(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, openError(ctx, l.cfg.Hop)
		}
		return nil, refusedBy(err)
	}
	var timeout time.Duration
	if t, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(t), time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		return nil, refusedBy(l.err)
	case l.goneAway != nil:
		return nil, l.goneAway
	case l.draining != nil:
		return nil, l.draining
	case !r.Target.Fits() || len(r.Cluster) > maxCluster:
		return nil, &Error{
			Code: wire.CodeInvalidTarget, Hop: l.cfg.Hop, Refused: true, Message: "a name in the target is too long or not UTF-8",
		}
	case len(l.control) > maxControl/2:
		return nil, &Error{
			Code: wire.CodeResourceExhausted, Hop: l.cfg.Hop, Refused: true, Message: "the link does not take what is queued for it",
		}
	case peer.MaxSessions > 0 && uint64(l.ownOpen) >= uint64(peer.MaxSessions):
		return nil, &Error{
			Code: wire.CodeResourceExhausted, Hop: l.cfg.Hop, Refused: true,
			Message: fmt.Sprintf("the peer takes %d sessions on a link", peer.MaxSessions),
		}
	case uint64(len(r.Payload)) > peer.InitialWindow:
		return nil, &Error{
			Code: wire.CodeResourceExhausted, Hop: l.cfg.Hop, Refused: true,
			Message: fmt.Sprintf("first bytes of %d where the peer takes %d", len(r.Payload), peer.InitialWindow),
		}
	}
	id := l.nextID()
	s := l.newSession(id)
	l.ownOpen++
	l.count.opening++
	s.target, s.requestID, s.trace = r.Target, r.RequestID, r.Trace
	s.decided = make(chan struct{})
	s.sendLimit = wire.Offset(peer.InitialWindow)
	window := l.cfg.InitialWindow
	if l.cfg.Budget.short() {
		window = min(window, l.cfg.MinWindow) // more when its reader asks for it
	}
	granted := l.cfg.Budget.reserve(int64(window), int64(l.cfg.MinWindow))
	s.recvLimit = wire.Offset(granted)
	s.sendOff = wire.Offset(len(r.Payload))
	l.count.sent += uint64(len(r.Payload))
	var first mem.Buffer
	if len(r.Payload) > 0 {
		first = buffer.Copy(r.Payload)
	}
	l.sendControl(wire.Frame{
		Kind: wire.KindOpen, Session: id, Payload: first,
		Open: &wire.Open{
			Target: r.Target, Window: uint64(granted), Timeout: timeout,
			Trace: r.Trace, RequestID: r.RequestID, Cluster: r.Cluster,
		},
	})
	return s, nil
}

func (l *Link) nextID() wire.SessionID {
	if l.lastOwn == 0 {
		l.lastOwn = 2
		if l.cfg.Dialler {
			l.lastOwn = 1
		}
	} else {
		l.lastOwn += 2
	}
	return l.lastOwn
}

// Wait waits until the peer has decided about a session that this side opened.
// When ctx ends first, or the session was refused, the session is closed.
func (s *Session) Wait(ctx context.Context) error {
	select {
	case <-s.decided:
	case <-ctx.Done():
		e := openError(ctx, s.link.cfg.Hop)
		e.Refused = false // the peer may have acted on the open already
		s.link.mu.Lock()
		if s.state == stateOpening {
			s.reset(e)
		}
		s.link.mu.Unlock()
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.err != nil && !s.opened {
		s.discard()
		return s.err
	}
	return nil // what came after the open, Read tells
}

// openError turns the end of a context, before the open was sent, into an error
// of this side.
func openError(ctx context.Context, hop wire.Hop) *Error {
	code := wire.CodeCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = wire.CodeDeadlineExceeded
	}
	return &Error{Code: code, Hop: hop, Message: context.Cause(ctx).Error(), Refused: true}
}

// refusedBy is the error of an open on a link that has ended.
func refusedBy(err error) *Error {
	e := &Error{Code: wire.CodeLinkLost, Hop: wire.HopLink, Message: "the link has ended", Refused: true}
	if cause := (*Error)(nil); errors.As(err, &cause) {
		e.Code, e.Hop, e.Message = cause.Code, cause.Hop, cause.Message
	}
	return e
}

// Incoming is a session that the peer asks for. The Handler calls Accept or
// Refuse once; the session is refused when it returns without.
type Incoming struct {
	s *Session
	// guarded by the link's lock
	accepted bool
	freed    bool // no longer counted as pending
}

// free gives back the place among the undecided. A handler keeps it until it
// accepts or returns, even when its session is gone, so that there are never more
// handlers than MaxPending allows. mu is held.
func (in *Incoming) free() {
	if !in.freed {
		in.freed = true
		in.s.link.pending--
	}
}

// Target returns what the peer wants to reach. It is the peer's word and must
// be checked.
func (in *Incoming) Target() wire.Target { return in.s.target }

// Cluster returns where the target is, as the peer says, or "".
func (in *Incoming) Cluster() string { return in.s.cluster }

// First returns what has arrived of the stream by now, at most most bytes. What it
// returns Read does not give once more. It is for before Accept, so that first bytes can
// travel on with the open of a session to the next hop.
func (in *Incoming) First(most int) []byte {
	s := in.s
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	first := make([]byte, 0, min(most, s.recvQ.size))
	for len(first) < cap(first) {
		piece := s.recvQ.pop(cap(first) - len(first))
		first = append(first, piece.ReadOnlyData()...)
		piece.Free()
	}
	// Credit for more goes with OPENED, and none before.
	s.link.cfg.Budget.release(int64(len(first)))
	s.readOff += wire.Offset(len(first))
	return first
}

// RequestID returns the opener's request id, or "".
func (in *Incoming) RequestID() string { return in.s.requestID }

// Trace returns the opener's traceparent, or "".
func (in *Incoming) Trace() string { return in.s.trace }

// Accept tells the peer that the target is connected and returns the session,
// which the caller must close. It fails when the opener has given up.
func (in *Incoming) Accept() (*Session, error) {
	s := in.s
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.state != stateOpening {
		if s.err != nil {
			return nil, s.err
		}
		return nil, errors.New("the session is decided already")
	}
	in.accepted = true
	in.free()
	s.state = stateOpen
	s.widen()
	s.link.sendControl(wire.Frame{Kind: wire.KindOpened, Session: s.id, Offset: s.recvLimit})
	s.schedule()
	return s, nil
}

// widen gives a session that the peer opened its first whole window, as far as
// the budget has it to spare. mu is held.
func (s *Session) widen() {
	cfg := &s.link.cfg
	if s.finRecv || s.readClosed || cfg.Budget.short() {
		return
	}
	s.recvLimit += wire.Offset(cfg.Budget.reserve(int64(cfg.InitialWindow-cfg.MinWindow), 0))
}

// Refuse tells the peer why the target is not connected.
func (in *Incoming) Refuse(code wire.Code, hop wire.Hop, message string) {
	s := in.s
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.state == stateOpening {
		s.reset(&Error{Code: code, Hop: hop, Message: message})
	}
}

// release ends the part of a handler that has returned, and drops what came for
// a session that was never accepted.
func (in *Incoming) release() {
	s := in.s
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	in.free()
	if !in.accepted {
		s.discard()
	}
}

// startHandler runs the Handler for s in a goroutine of its own.
func (l *Link) startHandler(s *Session, timeout time.Duration) {
	if timeout <= 0 || timeout > l.cfg.OpenTimeout {
		timeout = l.cfg.OpenTimeout
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	s.cancel = cancel
	expire := time.AfterFunc(timeout, func() { s.openTimedOut(timeout) })
	l.handlers.Go(func() {
		defer cancel(nil)
		defer expire.Stop()
		in := &Incoming{s: s}
		l.cfg.Handler(ctx, in)
		in.Refuse(wire.CodeInternal, l.cfg.Hop, "the handler ended without a decision")
		in.release()
	})
}

func (s *Session) openTimedOut(after time.Duration) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.state == stateOpening {
		s.reset(&Error{
			Code: wire.CodeDeadlineExceeded, Hop: s.link.cfg.Hop,
			Message: fmt.Sprintf("the target was not connected within %v", after),
		})
	}
}
