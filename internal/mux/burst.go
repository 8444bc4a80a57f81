package mux

import (
	"io"
	"net"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	maxVector = 64
	maxBurst  = 256 << 10
)

// burst is what is written with one system call.
type burst struct {
	pieces [maxVector]mem.Buffer
	data   [maxVector][]byte
	vector net.Buffers
	n      int // pieces
	size   int // bytes
}

// bursts has those that are not in use: a session that waits holds none.
var bursts = sync.Pool{New: func() any { return new(burst) }}

// takeBurst takes up to maxBurst bytes, of which there are some. mu is held.
func (s *Session) takeBurst() *burst {
	b, _ := bursts.Get().(*burst)
	if s.cur != nil {
		b.add(s.cur)
		s.cur = nil
	}
	for b.n < maxVector && b.size < maxBurst && s.recvQ.size > 0 {
		b.add(s.recvQ.pop(maxPiece))
	}
	return b
}

func (b *burst) add(p mem.Buffer) {
	b.pieces[b.n], b.data[b.n] = p, p.ReadOnlyData()
	b.n++
	b.size += p.Len()
}

// writeTo writes everything and gives b back. Another session takes the pieces
// themselves.
func (b *burst) writeTo(w io.Writer) (written int64, err error) {
	if dst, ok := w.(*Session); ok {
		written, err = dst.takePieces(b.pieces[:b.n])
	} else {
		b.vector = b.data[:b.n]
		written, err = b.vector.WriteTo(w)
		for _, p := range b.pieces[:b.n] {
			p.Free()
		}
	}
	b.put()
	return written, err
}

// put gives b back once its pieces have found owners.
func (b *burst) put() {
	clear(b.pieces[:b.n])
	clear(b.data[:b.n])
	b.vector, b.n, b.size = nil, 0, 0
	bursts.Put(b)
}

// free gives b and its pieces back.
func (b *burst) free() {
	for _, p := range b.pieces[:b.n] {
		p.Free()
	}
	b.put()
}

// takePieces queues pieces, all of which it takes over, as Write would queue a
// copy of them.
func (s *Session) takePieces(pieces []mem.Buffer) (n int64, err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	for _, p := range pieces {
		size := int64(p.Len())
		if err == nil {
			_, err = s.waitRoom()
		}
		if err != nil {
			p.Free()
			continue
		}
		if err = s.enqueue(p); err == nil {
			n += size
		}
	}
	return n, err
}
