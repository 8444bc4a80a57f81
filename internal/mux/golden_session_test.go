package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// goldenSession is a session of a run.
type goldenSession struct {
	g        *golden
	index    int
	plan     goldenPlan
	ends     [2]*goldenEnd // the opener's and the acceptor's
	accepted chan error    // one value for each session that the acceptor took

	begun, done atomic.Bool
}

// newEnds forgets what an attempt to open has left.
func (s *goldenSession) newEnds() {
	for side := range s.ends {
		s.ends[side] = newEnd(s, side)
	}
}

// outlives tells that the session may still be there when the links end.
func (s *goldenSession) outlives() bool {
	return s.plan.kind == openedKind && (s.plan.ends[0].outlives || s.plan.ends[1].outlives)
}

// isLive tells that the bytes of an end's writer are read without a stop.
func (s *goldenSession) isLive(writer int) bool { return !s.plan.ends[1-writer].stops }

// reason is what an end says when it resets or refuses; no two say the same.
func (s *goldenSession) reason(side int) string {
	return fmt.Sprintf("session %d, end %d", s.index, side)
}

// code goes with the reason.
func (s *goldenSession) code(side int) wire.Code {
	codes := []wire.Code{wire.CodeConnectionReset, wire.CodeTLSFailure, wire.CodeUnavailable, wire.CodeCanceled}
	return codes[(s.index+side)%len(codes)]
}

// String tells how far the session is.
func (s *goldenSession) String() string {
	text := fmt.Sprintf("session %d: %+v", s.index, s.plan)
	for i, e := range s.ends {
		text += fmt.Sprintf("\n  end %d: reader got %d, done: %t; writer got rid of %d, done: %t",
			i, e.got.Load(), isDone(e.read), e.taken.Load(), isDone(e.written))
	}
	return text
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// waits tells what keeps a session from ending, or "".
func (s *goldenSession) waits() string {
	var halves []string
	for writer, e := range s.ends {
		if s.isLive(writer) && (!isDone(e.written) || !isDone(s.ends[1-writer].read)) {
			halves = append(halves, fmt.Sprintf("bytes of end %d, which nobody stops, are on their way", writer))
		}
	}
	if len(halves) == 0 && isDone(s.g.release) && !s.outlives() {
		return "it was released"
	}
	return strings.Join(halves, "; ")
}

// run is the whole life of the session.
func (s *goldenSession) run() {
	g := s.g
	defer g.all.Done()
	if !s.outlives() {
		defer g.ends.Done()
	}
	defer s.done.Store(true)
	g.pause(s.plan.start)
	g.slots <- struct{}{}
	g.started.Add(1)
	s.begun.Store(true)
	defer g.ended.Add(1)
	opened, err := s.open()
	for exhausted(err) && !g.aborted.Load() {
		g.exhausted.Add(1)
		s.newEnds()
		s.plan.early = false // its writes would be refused with it
		g.pause(100 * time.Millisecond)
		opened, err = s.open()
	}
	s.judgeOpen(opened, err)
	for writer := range 2 {
		if s.isLive(writer) {
			if opened {
				<-s.ends[writer].written
				<-s.ends[1-writer].read
			}
			g.live.Done()
		}
	}
	<-g.slots
	if opened {
		s.finish()
	}
}

// exhausted tells that an open may be tried again later.
func exhausted(err error) bool {
	var e *mux.Error
	return errors.As(err, &e) && e.Refused && e.Code == wire.CodeResourceExhausted
}

// open opens the session and starts its ends. They run when opened is returned,
// even when an error tells that the acceptor reset the session before the opener
// knew of its decision.
func (s *goldenSession) open() (opened bool, err error) {
	link := s.g.links[1]
	if s.plan.byDialler {
		link = s.g.links[0]
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if s.plan.kind == canceledKind {
		defer time.AfterFunc(s.plan.decide, cancel).Stop()
	}
	e := s.ends[0]
	request := mux.Request{Target: wire.Address("golden", 1), RequestID: strconv.Itoa(s.index), Payload: e.bytes(0, s.plan.first)}
	e.taken.Store(int64(s.plan.first))
	if s.plan.early {
		if e.conn, err = link.Start(ctx, request); err == nil {
			e.start()
			err = e.conn.Wait(ctx)
		}
	} else if e.conn, err = link.Open(ctx, request); err == nil {
		e.start()
	}
	if e.conn == nil {
		e.left = true
		close(e.read)
		close(e.written)
	}
	if refused := (*mux.Error)(nil); s.plan.kind != refusedKind && s.plan.kind != canceledKind && (!errors.As(err, &refused) || !refused.Refused) {
		select {
		case failed := <-s.accepted:
			return failed == nil, errors.Join(err, failed)
		case <-s.g.over: // the run has failed
		}
	}
	if e.conn != nil { // refused
		<-e.written
		<-e.read
		err = errors.Join(err, e.conn.Close())
	}
	return false, err
}

// judgeOpen compares how the open went with the plan.
func (s *goldenSession) judgeOpen(opened bool, err error) {
	var e *mux.Error
	var right bool
	switch s.plan.kind {
	case refusedKind:
		right = errors.As(err, &e) && e.Refused && e.Code == wire.CodeNotFound && e.Hop == wire.HopTarget && e.Message == s.reason(1)
	case canceledKind:
		right = errors.As(err, &e) && e.Code == wire.CodeCanceled && e.Message == context.Canceled.Error()
	default:
		right = opened && (err == nil || s.isReset(err))
	}
	if !right {
		s.g.errorf("%v\n  was opened: %t, %v", s, opened, err)
	}
}

// finish waits for both ends, closes them, and judges.
func (s *goldenSession) finish() {
	for _, e := range s.ends {
		<-e.written
		<-e.read
		if e.conn == nil {
			continue
		}
		if err := e.conn.Close(); err != nil && (!errors.Is(err, net.ErrClosed) || !e.closed.Load()) {
			s.g.errorf("%v\n  close: %v", s, err)
		}
	}
	s.g.sample()
	for writer := range 2 {
		w, r := s.ends[writer], s.ends[1-writer]
		if err := errors.Join(r.misread, s.judgeReader(w, r), s.judgeWriter(w, r)); err != nil {
			s.g.errorf("%v\n  from end %d: %v", s, writer, err)
		}
	}
}

// judgeReader says what is wrong with what r got of what w sent.
func (s *goldenSession) judgeReader(w, r *goldenEnd) error {
	got, taken := r.got.Load(), w.taken.Load()
	switch err := r.readErr; {
	case got > taken:
		return fmt.Errorf("the reader got %d bytes of %d", got, taken)
	case r.left:
		return nil // it read no more after its own reset
	case errors.Is(err, io.EOF):
		switch {
		case r.closedRead.Load():
			return nil
		case !w.closedWrite.Load():
			return fmt.Errorf("the reader got a clean end after %d bytes, and the writer had not ended", got)
		case got < taken:
			return fmt.Errorf("the reader got %d bytes of %d before a clean end", got, taken)
		}
		return nil
	case errors.Is(err, net.ErrClosed) && r.closed.Load():
		return nil
	case s.isReset(err):
		if got < taken && s.hadToDeliver(w, r) {
			return fmt.Errorf("the reader got %d bytes of %d before a failure that came behind them: %w", got, taken, err)
		}
		return nil
	default:
		return fmt.Errorf("the reader got %d bytes of %d, then: %w", got, taken, err)
	}
}

// failTime is how long a session that fails goes on to deliver.
const failTime = 10 * time.Second

// hadToDeliver tells whether r, which got an error, had to get before it all that w wrote:
// w's failure, and nothing else, ended the session, while there was time.
func (s *goldenSession) hadToDeliver(w, r *goldenEnd) bool {
	failed := w.failed.Load()
	return failed != nil && !w.cut.Load() && !r.wasReset.Load() && !r.closedRead.Load() && !r.closed.Load() &&
		!s.outlives() && r.readUntil.Sub(*failed) < failTime
}

// judgeWriter says what is wrong with how w ended.
func (s *goldenSession) judgeWriter(w, r *goldenEnd) error {
	taken := w.taken.Load()
	switch err := w.writeErr; {
	case w.conn == nil:
		return nil // it learned of a reset when it opened
	case err == nil && taken != int64(w.plan.size):
		return fmt.Errorf("the writer got rid of %d bytes of %d, without an error", taken, w.plan.size)
	case err == nil:
		return nil
	case errors.Is(err, net.ErrClosed) && w.closed.Load():
		return nil
	case errors.Is(err, syscall.EPIPE) && (r.closedRead.Load() || r.closed.Load() || r.failed.Load() != nil):
		return nil
	case s.isReset(err):
		return nil
	default:
		return fmt.Errorf("the writer got rid of %d bytes of %d, then: %w", taken, w.plan.size, err)
	}
}

// isReset tells whether an error is the very reset that one of the ends made, or
// the loss of the link where the session may outlive it.
func (s *goldenSession) isReset(err error) bool {
	var e *mux.Error
	if !errors.As(err, &e) || e.Refused {
		return false
	}
	for side, end := range s.ends {
		if end.wasReset.Load() && e.Code == s.code(side) && e.Hop == wire.HopTarget && e.Message == s.reason(side) {
			return true
		}
	}
	return s.outlives() && e.Code == wire.CodeLinkLost
}
