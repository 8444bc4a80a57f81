package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// Transport moves batches of frames. Send and Recv are each called by one
// goroutine at a time, the two of them concurrently.
type Transport interface {
	// Send delivers the batch in order and empties it. It blocks while the
	// peer's transport does not take more.
	Send(b *wire.Batch) error
	// Recv fills r with at least one more message.
	Recv(r *wire.Received) error
	// Close ends the transport and makes Send and Recv return. When flush is set,
	// what was sent is delivered first, within a bounded time. It is called once,
	// concurrently with both.
	Close(flush bool)
}

// Link is one end of a stream of frames and owns all sessions on it. Its
// methods are safe for concurrent use.
type Link struct {
	cfg Config
	tr  Transport

	helloDone chan struct{} // closed when the peer's HELLO arrived or the link ended
	ended     chan struct{} // closed when the link ended

	handlers sync.WaitGroup // goroutines that run Config.Handler
	sends    sync.WaitGroup // the goroutine of the send loop
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// mu guards everything below and all sessions. Nobody blocks under it.
	mu       sync.Mutex
	running  bool      // Run was called
	sending  bool      // the send loop runs
	wake     sync.Cond // the send loop waits here
	err      error     // why the link ended; nil while it runs
	peer     *wire.Hello
	sessions map[wire.SessionID]*Session

	lastOwn  wire.SessionID // highest id used by this side
	lastPeer wire.SessionID // highest id seen from the peer
	ownOpen  int            // sessions opened by this side that are alive
	peerOpen int            // sessions opened by the peer that are alive
	pending  int            // sessions of the peer that are undecided
	draining *Error         // no new sessions are taken; what the peer was told
	goneAway *Error         // the peer takes no new sessions
	leaving  chan struct{}  // closed with goneAway
	// how ready the peer is, as it said; nil when it said nothing
	peerStatus *wire.Status
	drainedCh  chan struct{} // closed when draining and no session is left; nil otherwise

	// what the send loop has to do, in its order of precedence
	control []wire.Frame // bounded by maxControl
	pongDue bool
	pong    uint64
	// the peer is to be told how ready this side is
	statusDue  bool
	statusSent *wire.Status
	credits    list // sessions with credit, RECLAIM, RETURNED or STOP to send
	fresh      list // sessions that were idle and have data
	busy       list // the others that have data
	idle       lru  // sessions by last receipt, for reclaiming
	finished   bool // the send loop ends once control is empty

	lone      bool      // the receive loop handles a message of one frame
	woken     *pump     // by that frame, for the receive loop to run
	lastSmall time.Time // when a session that sends little sent something
	farewell  error     // why the link ends once the peer has been told
	lastRecv  time.Time
	lastPing  time.Time
	rtt       rtt
	count     counters
}

// New returns a link over tr. The caller must call Run, which takes tr over.
func New(tr Transport, cfg Config) *Link {
	l := newLink(cfg.withDefaults())
	l.tr = tr
	return l
}

func newLink(cfg Config) *Link {
	l := &Link{
		cfg:       cfg,
		helloDone: make(chan struct{}),
		ended:     make(chan struct{}),
		leaving:   make(chan struct{}),
		sessions:  make(map[wire.SessionID]*Session),
		lastRecv:  time.Now(),
		count:     counters{start: time.Now()},
	}
	l.wake.L = &l.mu
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	hello := cfg.Hello
	hello.Revision = wire.Revision
	hello.InitialWindow = uint64(cfg.MinWindow)
	hello.MaxData = uint32(cfg.MaxData)
	hello.MaxSessions = uint32(cfg.MaxSessions)
	l.control = append(l.control, wire.Frame{Kind: wire.KindHello, Hello: &hello})
	return l
}

// Run drives the link until ctx ends, the transport fails, the peer breaks the
// protocol or a drain is over. It returns the reason, after the link's goroutines
// and its handlers have ended; the sessions have failed with that reason, and the
// handlers' contexts were cancelled, before. A drain that this side began gives
// nil.
func (l *Link) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		l.fail(&Error{Code: wire.CodeLinkLost, Hop: l.cfg.Hop, Message: "the link was closed: " + context.Cause(ctx).Error()})
	})
	defer stop()
	l.mu.Lock()
	l.lastRecv, l.running = time.Now(), true
	l.wakeSender()
	l.mu.Unlock()
	stopKeeping := l.keep()
	l.receiveLoop() // to the end of the link
	stopKeeping()
	l.sends.Wait()
	l.handlers.Wait()
	return l.Err()
}

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.ended }

// LocalAddr returns the address of this end.
func (l *Link) LocalAddr() net.Addr { return l.cfg.LocalAddr }

// Leaving is closed when the peer has said that it takes no new sessions. Those that
// exist go on.
func (l *Link) Leaving() <-chan struct{} { return l.leaving }

// Err returns why the link ended: nil while it runs, and when this side drained
// it.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, errDrained) {
		return nil
	}
	return l.err
}

// Peer waits for the peer's HELLO and returns it. The caller must not change
// it.
func (l *Link) Peer(ctx context.Context) (*wire.Hello, error) {
	select {
	case <-l.helloDone:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peer == nil {
		return nil, l.err
	}
	return l.peer, nil
}

func (l *Link) receiveLoop() {
	var in wire.Received
	for {
		err := l.tr.Recv(&in)
		l.mu.Lock()
		now := time.Now()
		l.lone = len(in.Frames) == 1
		for i := range in.Frames {
			if herr := l.handle(&in.Frames[i], now); herr != nil {
				err = herr
				break
			}
		}
		woken := l.woken
		l.lone, l.woken = false, nil
		l.mu.Unlock()
		if woken != nil {
			woken.runHere()
		}
		in.Reset()
		if err != nil {
			l.receiveFailed(l.transportError(err))
			return
		}
	}
}

// receiveFailed ends the link. A peer that broke the protocol is told so first.
func (l *Link) receiveFailed(err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code != wire.CodeProtocolError {
		l.fail(err)
		return
	}
	l.mu.Lock()
	for _, s := range l.sessions {
		s.abort(e)
	}
	l.sendControl(wire.Frame{Kind: wire.KindGoAway, Code: e.Code, Message: e.Message, LastSession: l.lastPeer})
	l.farewell, l.finished = err, true
	l.mu.Unlock()
	l.sendFailed(err)
}

// wakeSender makes the send loop look for something to send. A link without sessions has
// that loop only while there is something. mu is held.
func (l *Link) wakeSender() {
	switch {
	case l.sending:
		l.wake.Signal()
	case l.running && l.err == nil:
		l.sending = true
		l.sends.Go(l.sendLoop)
	}
}

func (l *Link) sendLoop() {
	var b wire.Batch
	defer b.Free()
	for {
		l.mu.Lock()
		for l.err == nil && !l.fill(&b) {
			if l.finished {
				break
			}
			if len(l.sessions) == 0 {
				l.sending = false
				l.mu.Unlock()
				return
			}
			l.wake.Wait()
			if l.ownOpen+l.peerOpen > 1 {
				// Others that can run now may have more for the same batch.
				l.mu.Unlock()
				runtime.Gosched()
				l.mu.Lock()
			}
		}
		over, finished, farewell := l.err != nil, l.finished && b.Frames() == 0, l.farewell
		l.mu.Unlock()
		if over {
			return
		}
		if finished {
			if farewell == nil {
				farewell = errDrained
			}
			l.fail(farewell)
			return
		}
		if err := l.tr.Send(&b); err != nil {
			l.sendFailed(err)
			return
		}
	}
}

// reasonTime is how long a loop that failed waits for the other one: a failed
// send for what the receive loop may still find out (a GOAWAY that is under way,
// the status of the stream), a broken peer for being told.
const reasonTime = time.Second

// sendFailed ends the link with err unless the other loop ends it first.
func (l *Link) sendFailed(err error) {
	late := time.NewTimer(reasonTime)
	defer late.Stop()
	select {
	case <-l.ended:
	case <-late.C:
		l.fail(l.transportError(err))
	}
}

// transportError turns what the transport or the peer did into the link's
// error.
func (l *Link) transportError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, io.EOF) {
		if l.goneAway != nil { // announced, so the announcement is the reason
			return &Error{Code: l.goneAway.Code, Hop: wire.HopLink, Message: l.goneAway.Message}
		}
		return &Error{Code: wire.CodeLinkLost, Hop: wire.HopLink, Message: "the peer closed the stream"}
	}
	code := wire.CodeLinkLost
	if errors.Is(err, wire.ErrMalformed) {
		code = wire.CodeProtocolError
	}
	return &Error{Code: code, Hop: wire.HopLink, Message: err.Error(), Cause: err}
}

// fail ends the link: every session fails with err, everybody who waits wakes
// up, the transport is closed. Only the first call counts.
func (l *Link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: wire.CodeLinkLost, Hop: wire.HopLink, Message: err.Error()}
	}
	for _, s := range l.sessions {
		s.abort(e)
	}
	for i := range l.control {
		l.control[i].Free()
	}
	l.control = nil
	l.signalDrained()
	select {
	case <-l.helloDone:
	default:
		close(l.helloDone)
	}
	close(l.ended)
	l.wake.Broadcast()
	flush := l.finished
	l.mu.Unlock()
	l.cancel(e)
	l.tr.Close(flush)
}

// maxControl bounds the queue of control frames. The frames in it are answers
// to the peer or opens, which have bounds of their own; a peer that makes it
// grow beyond does not read.
const maxControl = 1 << 16

func (l *Link) sendControl(f wire.Frame) {
	l.control = append(l.control, f)
	l.wakeSender()
}

// sendPong answers a ping. Only the newest ping is answered, so pings cannot
// pile up.
func (l *Link) sendPong(nonce uint64) {
	l.pong, l.pongDue = nonce, true
	l.wakeSender()
}
