package mux

import (
	"context"
	"errors"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// errDrained ends a link whose drain is over.
var errDrained = errors.New("the link was drained")

// Drain tells the peer with code and message that this side takes no new
// sessions, waits until the sessions that exist have ended or ctx is done, and
// then ends the link, so that Run returns nil. Sessions that are left fail with
// code. Drain returns ctx's error when sessions were left.
func (l *Link) Drain(ctx context.Context, code wire.Code, message string) error {
	var deadline time.Duration
	if t, ok := ctx.Deadline(); ok {
		deadline = max(time.Until(t), 0)
	}
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil //nolint:nilerr // a link that has ended has nothing to drain
	}
	if l.draining == nil {
		l.draining = &Error{Code: code, Hop: l.cfg.Hop, Message: message, Refused: true}
		l.drainedCh = make(chan struct{})
		l.sendControl(wire.Frame{
			Kind: wire.KindGoAway, Code: code, Message: message,
			LastSession: l.lastPeer, Deadline: deadline,
		})
		l.signalDrained()
	}
	drained := l.drainedCh
	l.mu.Unlock()

	var err error
	select {
	case <-drained:
	case <-l.ended:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	l.mu.Lock()
	if err != nil {
		lost := &Error{Code: code, Hop: l.cfg.Hop, Message: message}
		for _, s := range l.sessions {
			s.reset(lost)
		}
	}
	l.finished = true
	l.wakeSender()
	l.mu.Unlock()
	return err
}

// ResetOpen resets the sessions that nobody has closed here. Those that were closed go on
// to deliver what was written.
func (l *Link) ResetOpen(code wire.Code, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if !s.closed {
			s.reset(&Error{Code: code, Hop: l.cfg.Hop, Message: message})
		}
	}
}

// signalDrained closes drainedCh once nothing is left to wait for.
func (l *Link) signalDrained() {
	if l.drainedCh == nil || (len(l.sessions) > 0 && l.err == nil) {
		return
	}
	select {
	case <-l.drainedCh:
	default:
		close(l.drainedCh)
	}
}

// handleGoAway runs in the receive loop.
func (l *Link) handleGoAway(f *wire.Frame) {
	if l.goneAway != nil {
		return
	}
	l.goneAway = &Error{Code: f.Code, Hop: wire.HopLink, Message: f.Message, Refused: true}
	close(l.leaving)
	for id, s := range l.sessions {
		// The peer never saw these; they can be opened again elsewhere.
		if s.state == stateOpening && l.isOwn(id) && id > f.LastSession {
			s.refused(l.goneAway)
		}
	}
}
