package audit

import (
	"context"
	"strconv"
	"sync"
)

// keepSpare is the largest buffer that is kept however little of it was used, in
// bytes.
const keepSpare = 256 << 10

// queue holds the lines that a sink has not taken yet, one after another in one
// buffer. It is bounded in bytes.
type queue struct {
	limit int

	mu     sync.Mutex
	buf    []byte
	spare  []byte // what take returned before, to be filled again
	lines  int
	closed bool
	// lossy lets nobody wait for room.
	lossy bool
	// in and out count the lines that were ever queued, and those of them that
	// the sink is done with.
	in, out uint64
	// progress is closed when out grows; nil while nobody waits for that.
	progress chan struct{}
	// missed counts the lines that were lost since the last one that was queued.
	missed uint64
	// ready has a token when there is something to take that was not before.
	ready chan struct{}
	// urgent is closed when the buffer is half full, and by close.
	urgent chan struct{}
	// room is closed when there is more room or none will ever be; nil while
	// nobody waits for that.
	room chan struct{}
	// ended is closed by close.
	ended chan struct{}
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, ready: make(chan struct{}, 1), urgent: make(chan struct{}), ended: make(chan struct{})}
}

// put appends a line and reports whether it did. When there is no room for it,
// the line is counted as missed if lose is set; else put returns what is closed
// once there may be. A closed queue loses every line.
func (q *queue) put(l []byte, lose bool) (ok bool, room <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.buf)+len(l) > q.limit-maxMissed {
		if q.closed || q.lossy || lose {
			q.missed++
			return false, nil
		}
		return false, q.waitForRoom()
	}
	q.buf = append(q.buf, l...)
	if q.missed > 0 {
		q.buf = appendMissed(q.buf, q.missed)
		q.missed = 0
	}
	q.in++
	if q.lines++; q.lines == 1 {
		q.ready <- struct{}{}
	}
	if len(q.buf) > q.limit/2 {
		q.hurry()
	}
	return true, nil
}

// maxMissed is what appendMissed adds at most, in bytes.
const maxMissed = len(`,"dropped":`) + 20

// appendMissed adds a member to the line that out ends with.
func appendMissed(out []byte, missed uint64) []byte {
	out = append(out[:len(out)-len("}\n")], `,"dropped":`...)
	return append(strconv.AppendUint(out, missed, 10), "}\n"...)
}

func (q *queue) waitForRoom() <-chan struct{} {
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return q.room
}

// full returns nil when a line of any size fits, else what is closed once there
// may be room.
func (q *queue) full() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.lossy || len(q.buf)+MaxLine <= q.limit-maxMissed {
		return nil
	}
	return q.waitForRoom()
}

// take returns all lines and how many they are. They are the caller's until its
// next call.
func (q *queue) take() ([]byte, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken, lines := q.buf, q.lines
	q.buf, q.lines = q.spare[:0], 0
	q.spare = taken
	if cap(q.spare) > keepSpare && len(q.spare) < cap(q.spare)/4 {
		q.spare = nil
	}
	// A put since the token was received left another one.
	select {
	case <-q.ready:
	default:
	}
	if !q.closed {
		select {
		case <-q.urgent:
			q.urgent = make(chan struct{})
		default:
		}
	}
	q.openRoom()
	return taken, lines
}

func (q *queue) openRoom() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// hurry tells the taker not to wait for more.
func (q *queue) hurry() {
	select {
	case <-q.urgent:
	default:
		close(q.urgent)
	}
}

// hurried returns what is closed when the taker should not wait for more.
func (q *queue) hurried() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.urgent
}

// unblock loses what there is no room for, from now on.
func (q *queue) unblock() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lossy = true
	q.openRoom()
}

// close lets nothing in any more and wakes everybody.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	close(q.ended)
	q.hurry()
	q.openRoom()
}

// settle says that the sink is done with lines that were taken.
func (q *queue) settle(lines int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out += uint64(lines)
	if q.progress != nil {
		close(q.progress)
		q.progress = nil
	}
}

// flush waits until the sink is done with everything that is queued now.
func (q *queue) flush(ctx context.Context) error {
	q.mu.Lock()
	until := q.in
	q.hurry()
	for q.out < until {
		if q.progress == nil {
			q.progress = make(chan struct{})
		}
		progress := q.progress
		q.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		q.mu.Lock()
	}
	q.mu.Unlock()
	return nil
}

// state returns how many bytes wait to be taken, how many lines the sink is not
// done with, and how many were lost with no line after them.
func (q *queue) state() (bytes int, lines, missed uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.buf), q.in - q.out, q.missed
}
