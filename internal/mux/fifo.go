package mux

import (
	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/buffer"
)

const (
	// copyBelow is up to which size bytes are copied into the queue's tail
	// rather than queued as the piece they came in. A piece may be a small part
	// of a transport buffer, which gRPC makes of 16 KiB for payload, and would
	// keep all of it alive. What waits behind much else will wait longer, and is
	// copied up to copyWaiting.
	copyBelow   = 4 << 10
	copyWaiting = 12 << 10
	muchElse    = 32 << 10
	// firstTail and nextTail are the sizes of tails of an empty and of a filled
	// queue.
	firstTail = 2 << 10
	nextTail  = 16 << 10
)

// fifo is a byte queue made of pooled buffers. The zero value is empty. The
// memory it holds is at most a small multiple of its size, whatever the sizes of
// the pieces pushed. Not safe for concurrent use.
type fifo struct {
	bufs []mem.Buffer
	head int
	tail *[]byte // last piece, still growing; nil when none
	size int
}

// push appends a piece and takes it over.
func (q *fifo) push(b mem.Buffer) {
	n := b.Len()
	if n < copyBelow || n < copyWaiting && q.size >= muchElse {
		q.append(b.ReadOnlyData())
		b.Free()
		return
	}
	q.sealTail()
	q.enqueue(b)
	q.size += n
}

// append copies p to the end of the queue.
func (q *fifo) append(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil {
			want := firstTail
			if q.size > len(p) {
				want = nextTail
			}
			q.tail = buffer.Pool().Get(max(want, len(p)))
			*q.tail = (*q.tail)[:0]
		}
		t := *q.tail
		n := copy(t[len(t):cap(t)], p)
		*q.tail = t[:len(t)+n]
		p = p[n:]
		if len(*q.tail) == cap(*q.tail) {
			q.sealTail()
		}
	}
}

func (q *fifo) sealTail() {
	if q.tail != nil {
		q.enqueue(mem.NewBuffer(q.tail, buffer.Pool()))
		q.tail = nil
	}
}

func (q *fifo) enqueue(b mem.Buffer) {
	if q.head > 0 && len(q.bufs) == cap(q.bufs) {
		n := copy(q.bufs, q.bufs[q.head:])
		clear(q.bufs[n:])
		q.bufs, q.head = q.bufs[:n], 0
	}
	q.bufs = append(q.bufs, b)
}

// pop removes and returns the next piece, at most limit bytes of it; nil when
// the queue is empty. The caller owns the piece.
func (q *fifo) pop(limit int) mem.Buffer {
	if q.head == len(q.bufs) {
		if q.tail == nil {
			return nil
		}
		q.sealTail()
	}
	b := q.bufs[q.head]
	if b.Len() > limit {
		left, right := mem.SplitUnsafe(b, limit)
		q.bufs[q.head] = right
		q.size -= limit
		return left
	}
	q.bufs[q.head] = nil
	q.head++
	q.size -= b.Len()
	if q.head == len(q.bufs) {
		q.head = 0
		if cap(q.bufs) > 64 && q.tail == nil {
			q.bufs = nil // a burst is over: an idle session keeps no large slice
		} else {
			q.bufs = q.bufs[:0]
		}
	}
	return b
}

// drop empties the queue.
func (q *fifo) drop() {
	for _, b := range q.bufs[q.head:] {
		b.Free()
	}
	if q.tail != nil {
		buffer.Pool().Put(q.tail)
	}
	*q = fifo{}
}
