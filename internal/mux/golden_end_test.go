package mux_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// goldenEnd is one end of a session: a reader and a writer.
type goldenEnd struct {
	s    *goldenSession
	side int
	plan *endPlan
	conn *mux.Session

	got, taken atomic.Int64 // bytes that the reader got, and that the writer got rid of
	// What was done to the session here; set before it is. One that failed was reset, too.
	closedRead, closedWrite, closed, wasReset, cut atomic.Bool
	failed                                         atomic.Pointer[time.Time] // the first time
	closes                                         atomic.Int32              // that succeeded

	// Of the writer; to be read once written is closed.
	writeErr error
	written  chan struct{}
	// Of the reader; to be read once read is closed.
	readErr, misread error
	readUntil        time.Time
	acted, left      bool
	read             chan struct{}
}

func newEnd(s *goldenSession, side int) *goldenEnd {
	return &goldenEnd{s: s, side: side, plan: &s.plan.ends[side], written: make(chan struct{}), read: make(chan struct{})}
}

// start starts reader and writer, once conn is set.
func (e *goldenEnd) start() {
	if e.s.plan.kind == talkKind {
		go e.runTalk()
		return
	}
	go e.runReader()
	go e.runWriter()
}

func (e *goldenEnd) rand(worker int) *rand.Rand {
	return rand.New(rand.NewPCG(e.s.g.seed, uint64(10_000+4*e.s.index+2*e.side+worker)))
}

// bytes are n bytes that this end sends, from off on.
func (e *goldenEnd) bytes(off int64, n int) []byte {
	start := (off + int64(7919*(2*e.s.index+e.side))) % goldenPeriod
	return e.s.g.bytes[start : start+int64(n)]
}

// rest lets some time pass now and then, mostly little.
func (e *goldenEnd) rest(rng *rand.Rand, permille int) {
	if rng.IntN(1000) >= permille {
		return
	}
	d := time.Duration(rng.IntN(10_000)) * time.Microsecond
	if rng.IntN(30) == 0 {
		d *= 400
	}
	e.s.g.pause(d)
}

// act does something to the session.
func (e *goldenEnd) act(a goldenAct) {
	var err error
	switch a {
	case goOn:
	case closeRead:
		e.closedRead.Store(true)
		err = e.conn.CloseRead()
	case closeWrite:
		e.closedWrite.Store(true)
		err = e.conn.CloseWrite()
	case closeBoth:
		e.closedWrite.Store(true)
		e.closed.Store(true)
		if err = e.conn.Close(); err == nil && e.closes.Add(1) > 1 {
			err = errors.New("it was closed before")
		}
	case reset:
		e.wasReset.Store(true)
		e.cut.Store(true)
		e.conn.Reset(e.s.code(e.side), wire.HopTarget, e.s.reason(e.side))
	case fail:
		now := time.Now()
		e.wasReset.Store(true)
		e.failed.CompareAndSwap(nil, &now)
		e.conn.Fail(e.s.code(e.side), wire.HopTarget, e.s.reason(e.side))
	}
	if err != nil && (!errors.Is(err, net.ErrClosed) || !e.closed.Load()) {
		e.s.g.errorf("%v\n  end %d: %v: %v", e.s, e.side, a, err)
	}
}

// runWriter sends everything and then acts.
func (e *goldenEnd) runWriter() {
	defer close(e.written)
	rng := e.rand(0)
	for left := e.plan.size - int(e.taken.Load()); left > 0; {
		e.rest(rng, e.plan.writeRest)
		piece := e.bytes(e.taken.Load(), min(left, rng.IntN(e.plan.piece+1)))
		var n int
		var err error
		if rng.IntN(100) < e.plan.readFrom {
			var long int64
			long, err = e.conn.ReadFrom(&goldenSource{piece, rng})
			n = int(long)
		} else {
			n, err = e.conn.Write(piece)
		}
		e.taken.Add(int64(n))
		left -= n
		e.s.g.sample()
		if err == nil && n != len(piece) {
			err = fmt.Errorf("%d bytes of %d were taken, without an error", n, len(piece))
		}
		if err != nil {
			e.writeErr = err
			return
		}
	}
	e.act(e.plan.last)
}

// runTalk speaks and listens in turns; the opener begins. A byte that stays behind,
// or a reader that is not woken for it, ends the talk for both.
func (e *goldenEnd) runTalk() {
	defer close(e.written)
	defer close(e.read)
	heard := make([]byte, e.plan.piece)
	for turn := range 2 * talkTurns {
		if turn%2 == e.side {
			n, err := e.conn.Write(e.bytes(e.taken.Load(), len(heard)))
			e.taken.Add(int64(n))
			if err != nil {
				e.writeErr, e.readErr = err, err
				return
			}
			continue
		}
		n, err := io.ReadFull(e.conn, heard)
		e.check(heard[:n])
		if err != nil {
			e.writeErr, e.readErr = err, err
			return
		}
	}
	e.act(e.plan.last)
	_, e.readErr = e.conn.Read(heard)
}

// goldenSource gives its bytes in pieces of random size, and the end with the last
// of them or after it.
type goldenSource struct {
	left []byte
	rng  *rand.Rand
}

// Read implements io.Reader.
func (s *goldenSource) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), 1+s.rng.IntN(64<<10))], s.left)
	s.left = s.left[n:]
	if len(s.left) == 0 && (n == 0 || s.rng.IntN(2) == 0) {
		return n, io.EOF
	}
	return n, nil
}

// runReader reads to the end, or as its plan says.
func (e *goldenEnd) runReader() {
	defer close(e.read)
	rng := e.rand(1)
	e.reached()
	e.readErr = e.readOn(rng)
	e.readUntil = time.Now()
	if !e.left && errors.Is(e.readErr, io.EOF) {
		// The end stays the end.
		if n, err := e.conn.Read(make([]byte, 8)); n != 0 || !errors.Is(err, io.EOF) && (!errors.Is(err, net.ErrClosed) || !e.closed.Load()) {
			e.misread = errors.Join(e.misread, fmt.Errorf("after the end: %d bytes, %w", n, err))
		}
	}
}

// readOn reads to the end or an error.
func (e *goldenEnd) readOn(rng *rand.Rand) error {
	reads := 0 // before WriteTo; -1: only Reads
	switch e.plan.how {
	case byRead:
		reads = -1
	case byBoth:
		reads = rng.IntN(50)
	}
	for buf := make([]byte, e.plan.buffer); reads != 0; reads-- {
		e.rest(rng, e.plan.readRest)
		n := 1 + rng.IntN(len(buf))
		if until := int64(e.plan.at) - e.got.Load(); until > 0 && !e.acted {
			n = int(min(int64(n), until))
		}
		n, err := e.conn.Read(buf[:n])
		e.check(buf[:n])
		if err != nil {
			return err
		}
		e.reached()
	}
	err := e.pour(&goldenSink{e, rng})
	switch {
	case err == nil:
		return io.EOF
	case !errors.Is(err, errActed):
		return err
	case e.plan.then == reset || e.plan.then == fail:
		e.left = true // WriteTo has dropped what the sink did not take
		return err
	default:
		_, err := e.conn.Read(make([]byte, 8)) // what CloseRead or Close leads to
		return err
	}
}

// pour is WriteTo, or Pump.
func (e *goldenEnd) pour(to io.Writer) error {
	if !e.plan.pumps {
		_, err := e.conn.WriteTo(to)
		return err
	}
	done := make(chan error, 1)
	e.conn.Pump(to, func(_ int64, err error) { done <- err })
	return <-done
}

// errActed ends a WriteTo in the middle.
var errActed = errors.New("the reader has acted")

// goldenSink takes what WriteTo gives.
type goldenSink struct {
	e   *goldenEnd
	rng *rand.Rand
}

// Write implements io.Writer.
func (k *goldenSink) Write(p []byte) (int, error) {
	e := k.e
	e.rest(k.rng, e.plan.readRest)
	n := len(p)
	if until := int64(e.plan.at) - e.got.Load(); until > 0 && !e.acted {
		n = int(min(int64(n), until))
	}
	e.check(p[:n])
	if e.reached() {
		return n, errActed
	}
	e.check(p[n:])
	return len(p), nil
}

// check compares what arrived with what was to arrive.
func (e *goldenEnd) check(p []byte) {
	got := e.got.Load()
	if want := e.s.ends[1-e.side].bytes(got, len(p)); !bytes.Equal(p, want) && e.misread == nil {
		at := 0
		for p[at] == want[at] {
			at++
		}
		e.misread = fmt.Errorf("byte %d is %#x where %#x is right", got+int64(at), p[at], want[at])
	}
	e.got.Add(int64(len(p)))
	e.s.g.sample()
}

// reached stops and acts when the reader is where its plan says so. It tells
// whether that was the end of reading.
func (e *goldenEnd) reached() bool {
	if e.acted || e.got.Load() != int64(e.plan.at) {
		return false
	}
	e.acted = true
	switch {
	case e.plan.outlives:
		<-e.s.g.over
	case e.plan.stops:
		<-e.s.g.release
	}
	e.act(e.plan.then)
	return e.plan.then != goOn
}
