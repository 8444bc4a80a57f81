package mux

import (
	"cmp"
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/wire"
)

type state uint8

const (
	stateOpening state = iota // OPEN was sent or received, nothing decided yet
	stateOpen
	stateDone // not in the link's table any more
)

// Session is one byte stream in each direction over a link, a complete
// [net.Conn]. Its methods are safe for concurrent use; concurrent Reads, and
// concurrent Writes, are done one after the other.
//
// Close delivers everything that was written, then ends both directions;
// CloseWrite and CloseRead end one. Once a session was reset, or its link was
// lost, Read gives what had arrived before and then an [*Error].
type Session struct {
	link *Link
	id   wire.SessionID
	own  bool // opened by this side

	readMu  sync.Mutex // one reader at a time; guards cur
	writeMu sync.Mutex // one writer at a time
	fromMu  sync.Mutex // one ReadFromConn at a time
	cur     mem.Buffer // piece that Read is in the middle of

	// Everything below is guarded by link.mu.

	target    wire.Target
	requestID string
	trace     string
	cluster   string

	state   state
	err     *Error        // why the session failed
	closed  bool          // Close was called
	decided chan struct{} // own: closed by OPENED or failure
	opened  bool          // own: OPENED came
	cancel  context.CancelCauseFunc

	writable     sync.Cond
	sendQ        fifo
	sendOff      wire.Offset
	sendLimit    wire.Offset
	deficit      int
	littleAt     wire.Offset // recvOff when it last sent something small
	finQueued    bool        // no more writes; FIN follows the queue
	failure      *Error      // RESET with it follows the queue in place of FIN; nil else
	failed       *time.Timer // sends it in any case; nil without failure
	finSent      bool
	stopRecv     bool          // the peer reads no more
	interruption *interruption // of the ReadFromConn under way; nil when there is none
	writeUntil   deadline
	began        time.Duration // when it began, by the link's clock
	stalledAt    time.Duration // since when bytes wait for credit alone; 0 when none do
	ended        func(SessionStats, error)

	readable   sync.Cond
	pump       *pump // nil when none is under way
	recvQ      fifo
	recvOff    wire.Offset // received
	readOff    wire.Offset // given to the reader
	recvLimit  wire.Offset // granted
	window     int
	epoch      time.Time // since when epochOff counts
	epochOff   wire.Offset
	rate       float64 // bytes a second that the reader took, of the last window
	lastRecv   time.Time
	finRecv    bool
	readClosed bool
	cutOff     bool // by failure: the reader has missed something
	readUntil  deadline

	// what is due in the credits list
	creditDue, stopDue, reclaimDue, returnDue bool
	reclaiming                                bool // RECLAIM sent, RETURNED not yet here

	nodes [listKinds]node
}

var _ net.Conn = (*Session)(nil)

// newSession enters a session into the table. mu is held.
func (l *Link) newSession(id wire.SessionID) *Session {
	s := &Session{link: l, id: id, own: l.isOwn(id), window: l.cfg.InitialWindow, epoch: time.Now(), began: l.age()}
	s.readable.L, s.writable.L = &l.mu, &l.mu
	l.sessions[id] = s
	l.idle.touch(s, s.epoch)
	return s
}

// ID returns the session's number on its link.
func (s *Session) ID() wire.SessionID { return s.id }

// Target returns what the session leads to.
func (s *Session) Target() wire.Target { return s.target }

// RequestID returns the request id that the opener gave, or "".
func (s *Session) RequestID() string { return s.requestID }

// LocalAddr returns the link's local address.
func (s *Session) LocalAddr() net.Addr { return s.link.cfg.LocalAddr }

// RemoteAddr returns the link's remote address.
func (s *Session) RemoteAddr() net.Addr { return s.link.cfg.RemoteAddr }

// schedule puts the session in line for sending if it has something to send.
func (s *Session) schedule() {
	s.noteStall()
	if s.nodes[dataList].in != nil || !s.sendable() {
		return
	}
	s.deficit = quantum
	s.link.fresh.add(s, dataList)
	s.link.wakeSender()
}

func (s *Session) sendable() bool {
	switch {
	case s.state == stateDone || s.finSent:
		return false
	case s.state == stateOpening && !s.own:
		return false // nothing goes before OPENED
	case s.sendQ.size > 0:
		return s.sendOff < s.sendLimit
	default:
		return s.finQueued
	}
}

// settle takes the session off the table once both halves are over.
func (s *Session) settle() {
	if s.finSent && s.finRecv && s.state != stateDone {
		s.remove()
	}
}

// reset tells the peer that the session is over and aborts it.
func (s *Session) reset(e *Error) {
	if s.state == stateDone {
		return
	}
	kind := wire.KindReset
	if s.state == stateOpening && !s.own { // RESET is for sessions that were opened
		kind = wire.KindRefused
	}
	s.link.sendControl(wire.Frame{Kind: kind, Session: s.id, Code: e.Code, Hop: e.Hop, Message: e.Message})
	s.abort(e)
}

// abort ends both halves at once. Bytes that arrived stay readable.
func (s *Session) abort(e *Error) {
	if s.state == stateDone {
		return
	}
	s.err = cmp.Or(s.err, s.failure, e)
	s.dropQueued()
	s.lowerLimit(s.recvOff)
	s.remove()
	if s.cancel != nil {
		s.cancel(e)
	}
	s.wakeReaders()
	s.writable.Broadcast()
}

func (s *Session) remove() {
	l := s.link
	if s.state == stateOpening && s.own {
		close(s.decided)
		l.count.opening--
	}
	s.state = stateDone
	if s.failed != nil {
		s.failed.Stop()
	}
	s.readUntil.rest()
	s.writeUntil.rest()
	s.noteStall()
	for kind := range listKinds {
		s.leave(kind)
	}
	delete(l.sessions, s.id)
	if s.own {
		l.ownOpen--
	} else {
		l.peerOpen--
	}
	s.tellEnd()
	l.signalDrained()
}

// Close ends both directions: what was written is still delivered, what has not
// been read is discarded, and the peer is told to stop. It does not wait. A
// second Close returns [net.ErrClosed].
//
// A session that the peer has not decided about yet is given up, with what was
// written; see Finish.
func (s *Session) Close() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.own && s.state == stateOpening {
		s.reset(&Error{Code: wire.CodeCanceled, Hop: s.link.cfg.Hop, Message: "closed before it was opened"})
	}
	s.close()
	s.closeBoth()
	return nil
}

// Finish is Close that delivers what was written in any case: where the peer has not
// decided yet, both directions end once it has.
func (s *Session) Finish() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.close()
	switch {
	case !s.own || s.state != stateOpening:
		s.closeBoth()
	case s.sendOff == 0 && s.sendQ.size == 0:
		s.reset(&Error{Code: wire.CodeCanceled, Hop: s.link.cfg.Hop, Message: "closed before it was opened"})
	}
	return nil
}

// close makes every use of the session fail. mu is held.
func (s *Session) close() {
	s.closed = true
	s.readUntil.stop()
	s.writeUntil.stop()
	s.wakeReaders()
	s.writable.Broadcast()
}

// closeBoth ends both directions. mu is held.
func (s *Session) closeBoth() {
	s.closeWrite()
	s.closeRead()
}

// CloseWrite ends the sending direction after what was written. Reading goes
// on.
func (s *Session) CloseWrite() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closeWrite()
	s.writable.Broadcast()
	return nil
}

func (s *Session) closeWrite() {
	if s.finQueued {
		return
	}
	s.finQueued = true
	s.schedule()
}

// CloseRead ends the receiving direction: what has not been read is discarded,
// and the peer's writes fail. Writing goes on; Read returns io.EOF.
func (s *Session) CloseRead() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closeRead()
	s.wakeReaders()
	return nil
}

func (s *Session) closeRead() {
	if s.readClosed {
		return
	}
	s.readClosed = true
	s.discard()
	if s.state != stateDone && !s.finRecv {
		s.stopDue, s.creditDue = true, false
		s.link.credits.add(s, creditList)
		s.link.wakeSender()
	}
}

// discard drops what was received and not read.
func (s *Session) discard() {
	s.recvQ.drop()
	s.link.cfg.Budget.release(int64(s.recvOff - s.readOff))
	s.readOff = s.recvOff
}

// Reset ends the session at once: what is queued or in flight is lost, and the
// peer's Read and Write fail with code and message.
func (s *Session) Reset(code wire.Code, hop wire.Hop, message string) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.reset(&Error{Code: code, Hop: hop, Message: message})
}

// Fail is Reset behind what was written: the peer gets that first, and then its Read fails
// with code and message. What has not been read is discarded, the peer is told to stop,
// and this side's Read and Write fail with that from now on. It does not wait; what the
// peer has not taken after ten seconds is lost.
func (s *Session) Fail(code wire.Code, hop wire.Hop, message string) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	e := &Error{Code: code, Hop: hop, Message: message}
	if s.state != stateOpen || s.finSent || s.sendQ.size == 0 {
		s.reset(e)
		return
	}
	if s.failure != nil {
		return
	}
	s.failure = e
	s.failed = time.AfterFunc(failTime, func() { s.Reset(code, hop, message) })
	s.cutOff = !s.readClosed && (!s.finRecv || s.readOff < s.recvOff) // else its reader has the end
	s.closeWrite()
	s.closeRead()
	s.wakeReaders()
	s.writable.Broadcast()
}

// failTime is how long Fail goes on to deliver.
const failTime = 10 * time.Second

// Err returns why the session failed, nil where it did not.
func (s *Session) Err() error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.failure != nil:
		return s.failure
	default:
		return nil
	}
}

// SetDeadline implements [net.Conn].
func (s *Session) SetDeadline(t time.Time) error {
	return s.setDeadlines(t, true, true)
}

// SetReadDeadline implements [net.Conn].
func (s *Session) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, true, false) }

// SetWriteDeadline implements [net.Conn].
func (s *Session) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, false, true) }

func (s *Session) setDeadlines(t time.Time, read, write bool) error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if read {
		s.readUntil.set(t, &s.link.mu, s.wakeReaders)
	}
	if write {
		s.writeUntil.set(t, &s.link.mu, s.writable.Broadcast)
	}
	return nil
}

// deadline wakes a condition when its time comes. The zero value never does. It
// is guarded by the condition's lock.
type deadline struct {
	until      time.Time // zero for none
	timer      *time.Timer
	expired    bool
	resting    bool // nobody waits any more: the clock tells, without a timer
	generation uint32
}

// over tells whether the time has come.
func (d *deadline) over() bool {
	return d.expired || d.resting && !d.until.IsZero() && !time.Now().Before(d.until)
}

// rest ends the timer, which would keep all that it reaches alive. The deadline counts on.
func (d *deadline) rest() {
	d.stop()
	d.resting = true
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.generation++
}

// set is called with mu held; wake tells those who wait, with mu held, too.
func (d *deadline) set(t time.Time, mu sync.Locker, wake func()) {
	d.stop()
	d.until, d.expired = t, false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expired = true
		wake()
		return
	}
	if d.resting {
		return
	}
	mine := d.generation
	d.timer = time.AfterFunc(wait, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.generation == mine {
			d.expired = true
			wake()
		}
	})
}
