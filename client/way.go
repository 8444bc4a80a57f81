package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// attemptTime bounds one attempt to connect, with the credential that it takes.
	attemptTime = 3 * time.Minute
	// The waits between attempts, of tunnel.NewBackoff, grow to absentInterval while
	// nothing listens at the hub's address, which costs nobody anything, and to
	// failInterval else. Who wants a connection cuts them short: at once while nothing
	// listens, and to about absentInterval else. What only another use can mend, such as
	// a credential that is refused, is not tried again without one.
	absentInterval = time.Second
	failInterval   = 15 * time.Second
	// leastWait is between two attempts, however many want one.
	leastWait = 50 * time.Millisecond
	// settledAfter is how long a connection must last for the waits to start over.
	settledAfter = 5 * time.Second
	// partTime is how long sessions of a connection may go on that has another in its
	// place: as long as they like, within reason.
	partTime = 24 * time.Hour
)

// way keeps one connection to the hub, from the first time that one is wanted. It is
// safe for concurrent use.
type way struct {
	cfg      tunnel.DialerConfig
	tokens   *tokens
	patience time.Duration
	log      *slog.Logger

	life   context.Context // ends with close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // the keeper, and connections that are parted with
	want   chan struct{}  // somebody waits for a connection

	mu       sync.Mutex
	started  bool
	closed   bool
	current  *held  // takes new sessions; nil while there is none
	attempts int    // that failed
	err      *Error // of the last one
	changed  chan struct{}
}

// held is a connection, with the token that it was made with.
type held struct {
	*tunnel.Conn

	token credential.Token
	stale chan struct{} // closed when the hub has refused the token for a session
}

func newWay(cfg tunnel.DialerConfig, set *settings) *way {
	w := &way{
		cfg: cfg, tokens: set.tokens, patience: set.rest.Patience, log: set.rest.Logger,
		want: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	w.life, w.cancel = context.WithCancel(context.Background())
	return w
}

// link returns a link that takes sessions, and waits for one as long as the client's
// patience. The error is an [*Error], or wraps [net.ErrClosed].
func (w *way) link(ctx context.Context) (*mux.Link, error) {
	var patience <-chan time.Time
	failed := -1
	for {
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return nil, net.ErrClosed
		}
		if ctx.Err() != nil { // also where a link is there
			w.mu.Unlock()
			return nil, w.ended(ctx)
		}
		if takes(w.current) {
			defer w.mu.Unlock()
			return w.current.Link(), nil
		}
		if failed < 0 {
			failed = w.attempts
		}
		fresh := w.attempts > failed
		err, changed := w.err, w.changed
		if !w.started {
			w.started = true
			w.tasks.Go(w.keep)
		}
		w.mu.Unlock()
		if fresh && (w.patience < 0 || err.fatal()) {
			return nil, err
		}
		if patience == nil && w.patience > 0 {
			timer := time.NewTimer(w.patience)
			defer timer.Stop()
			patience = timer.C
		}
		select {
		case w.want <- struct{}{}:
		default: // somebody asked already
		}
		select {
		case <-changed:
		case <-patience:
			return nil, w.missing("the hub cannot be reached")
		case <-ctx.Done():
			return nil, w.ended(ctx)
		}
	}
}

// takes tells whether a connection takes new sessions, as far as its link knows: the
// keeper hears of its end a moment later.
func takes(conn *held) bool {
	if conn == nil {
		return false
	}
	select {
	case <-conn.Link().Done():
		return false
	case <-conn.Link().Leaving():
		return false
	default:
		return true
	}
}

// missing is for who has waited long enough.
func (w *way) missing(what string) *Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	return &Error{Op: "connect to " + w.cfg.Address, Code: Unreachable, Hop: HopTunnel, Err: errors.New(what)}
}

// ended is for whose context is over.
func (w *way) ended(ctx context.Context) *Error {
	code := Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = DeadlineExceeded
	}
	why := context.Cause(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		why = errors.Join(why, w.err.Err)
	}
	return &Error{Op: "connect to " + w.cfg.Address, Code: code, Hop: HopTunnel, Err: why}
}

// keep connects and reconnects until close.
func (w *way) keep() {
	absent, failing := tunnel.NewBackoff(absentInterval), tunnel.NewBackoff(failInterval)
	var downSince time.Time // zero unless a connection was lost
	for w.life.Err() == nil {
		began := time.Now()
		conn, err := w.connect()
		if err != nil {
			w.fail(err)
			soon, late := absent.NextBackOff(), failing.NextBackOff()
			switch {
			case errors.Is(err, syscall.ECONNREFUSED):
				w.pause(began, leastWait, soon)
			case err.fatal():
				w.pause(began, soon, untilWanted)
			default:
				w.pause(began, soon, late)
			}
			continue
		}
		if !downSince.IsZero() {
			w.log.Info("connected to the hub again", "hub", w.cfg.Address, "after", time.Since(downSince).Round(time.Millisecond))
			downSince = time.Time{}
		}
		w.set(conn)
		why := w.attend(conn)
		if time.Since(began) > settledAfter {
			absent.Reset()
			failing.Reset()
		}
		ended := time.Now()
		if why != nil && w.life.Err() == nil {
			w.log.Warn("lost the connection to the hub, connecting again", "hub", w.cfg.Address, "reason", why)
			downSince = ended
		}
		wait := absent.NextBackOff() // so that not all come back at once
		w.pause(ended, wait, wait)
	}
}

// connect makes one connection.
func (w *way) connect() (*held, *Error) {
	ctx, cancel := context.WithTimeout(w.life, attemptTime)
	defer cancel()
	cfg := w.cfg
	made := &held{stale: make(chan struct{})}
	if w.tokens != nil {
		var err error
		if made.token, err = w.tokens.get(ctx); err != nil {
			return nil, tokenError(err)
		}
		cfg.Metadata = func(context.Context) ([]string, error) {
			return []string{"authorization", "Bearer " + made.token.Value}, nil
		}
	}
	var err error
	if made.Conn, err = tunnel.Connect(ctx, cfg); err != nil {
		failure := connectError(cfg.Address, err)
		if w.tokens != nil && failure.Code == Unauthenticated && failure.Hop == HopHub {
			w.tokens.refused(made.token.Value) // the next attempt asks for another
		}
		return nil, failure
	}
	return made, nil
}

// attend returns when new sessions need another connection that is still to be made:
// with why this one was lost, or with nil where the hub has refused its token.
func (w *way) attend(conn *held) error {
	look := conn.token // which says when to look for another one
	for {
		select {
		case <-conn.Done():
			w.unset(conn)
			return conn.Wait()
		case <-conn.Link().Leaving():
			w.unset(conn)
			w.part(conn)
			return errors.New("the hub takes no new sessions on it")
		case <-conn.stale:
			w.part(conn)
			return nil
		case <-w.renewal(look):
			conn, look = w.renew(conn)
		case <-w.life.Done():
			w.unset(conn)
			w.end(conn)
			return nil
		}
	}
}

// renewal tells when to look for another token.
func (w *way) renewal(token credential.Token) <-chan time.Time {
	if w.tokens == nil {
		return nil
	}
	return time.After(max(time.Until(token.Fresh()), time.Second))
}

// renew makes a connection with another token, before the one that there is goes. What
// does not work is tried again: the connection is good until the hub says otherwise. It
// returns the connection that there is then, and the token that says when to look again.
func (w *way) renew(conn *held) (*held, credential.Token) {
	ctx, cancel := context.WithTimeout(w.life, attemptTime)
	defer cancel()
	inAWhile := credential.Token{Got: time.Now()}
	next, err := w.tokens.next(ctx)
	if err != nil {
		if w.life.Err() == nil {
			w.log.Warn("cannot get another token for the hub, trying again", "hub", w.cfg.Address, "reason", err)
		}
		return conn, inAWhile
	}
	if next.Value == conn.token.Value {
		return conn, next
	}
	other, failure := w.connect()
	if failure != nil {
		if w.life.Err() == nil {
			w.log.Warn("cannot connect to the hub with another token, trying again", "hub", w.cfg.Address, "reason", failure)
		}
		return conn, inAWhile
	}
	w.set(other)
	w.part(conn)
	return other, other.token
}

// refused is told of a link on which the hub refused the token for a session. It does not
// wait.
func (w *way) refused(link *mux.Link) {
	w.mu.Lock()
	conn := w.current
	if conn == nil || conn.Link() != link {
		w.mu.Unlock()
		return // there is another one already, or soon
	}
	w.current = nil
	close(conn.stale)
	w.mu.Unlock()
	if w.tokens != nil {
		w.tokens.refused(conn.token.Value)
	}
}

// set makes conn the one that new sessions are for.
func (w *way) set(conn *held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current, w.err = conn, nil
	w.tell()
}

func (w *way) unset(conn *held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == conn {
		w.current = nil
	}
}

func (w *way) fail(err *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts++
	w.err = err
	w.tell()
}

// tell wakes those who wait. mu is held.
func (w *way) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// untilWanted is for what only another use mends.
const untilWanted = time.Duration(-1)

// pause waits between two attempts: least after the first began, and most where nobody
// wants a connection.
func (w *way) pause(began time.Time, least, most time.Duration) {
	first := time.NewTimer(max(time.Until(began.Add(max(least, leastWait))), 0))
	defer first.Stop()
	select {
	case <-first.C:
	case <-w.life.Done():
		return
	}
	var over <-chan time.Time // never, for untilWanted
	if most >= 0 {
		whole := time.NewTimer(max(time.Until(began.Add(most)), 0))
		defer whole.Stop()
		over = whole.C
	}
	select {
	case <-over:
	case <-w.want:
	case <-w.life.Done():
	}
}

// part lets the sessions of a connection go on that takes no new ones.
func (w *way) part(conn *held) {
	w.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(w.life, partTime)
		defer cancel()
		_ = conn.Drain(ctx, wire.CodeDraining, "the client has another connection") // what is left is cut
		w.end(conn)
	})
}

// lastTime is how long what was written on connections that are closed may take to get
// out when the client closes.
const lastTime = 5 * time.Second

// end ends a connection.
func (w *way) end(conn *held) {
	ctx, cancel := context.WithTimeout(context.Background(), lastTime)
	defer cancel()
	conn.Link().ResetOpen(wire.CodeCanceled, "the client was closed")
	_ = conn.Drain(ctx, wire.CodeDraining, "the client is going") // what is left is cut
	conn.Close()
	<-conn.Done()
}

// close ends everything, and waits for it.
func (w *way) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	w.closed = true
	w.cancel()
	w.tell()
	w.mu.Unlock()
	if w.tokens != nil {
		w.tokens.close()
	}
	w.tasks.Wait()
	return nil
}
