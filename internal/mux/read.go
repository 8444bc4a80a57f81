package mux

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/mem"
)

// Read implements [net.Conn]. It returns io.EOF after the peer's last byte.
func (s *Session) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.link.mu.Lock()
	if err := s.awaitData(); err != nil {
		s.link.mu.Unlock()
		return 0, err
	}
	if s.cur == nil {
		s.cur = s.recvQ.pop(maxPiece)
	}
	// The piece in hand is copied outside of the lock. It counts as read from
	// here on; the reader holds at most one.
	if n := s.cur.Len(); n <= len(p) {
		s.consumed(n)
	} else {
		s.consumed(len(p))
	}
	s.link.mu.Unlock()
	n, rest := mem.ReadUnsafe(p, s.cur)
	s.cur = rest
	return n, nil
}

// WriteTo implements [io.WriterTo]: it writes the pieces as they arrived,
// without copying them.
func (s *Session) WriteTo(w io.Writer) (int64, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	var total int64
	for {
		b, err := s.takeBurst()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		n := b.size
		written, err := b.writeTo(w)
		total += written
		s.link.mu.Lock()
		s.consumed(n) // only now, so that a slow w holds the peer back
		s.link.mu.Unlock()
		if err != nil {
			return total, err
		}
	}
}

const (
	maxPiece  = 1 << 30
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

// takeBurst waits for data and takes up to maxBurst bytes of it.
func (s *Session) takeBurst() (*burst, error) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if err := s.awaitData(); err != nil {
		return nil, err
	}
	b, _ := bursts.Get().(*burst)
	if s.cur != nil {
		b.add(s.cur)
		s.cur = nil
	}
	for b.n < maxVector && b.size < maxBurst && s.recvQ.size > 0 {
		b.add(s.recvQ.pop(maxPiece))
	}
	return b, nil
}

func (b *burst) add(p mem.Buffer) {
	b.pieces[b.n], b.data[b.n] = p, p.ReadOnlyData()
	b.n++
	b.size += p.Len()
}

// writeTo writes everything and gives b back.
func (b *burst) writeTo(w io.Writer) (int64, error) {
	b.vector = b.data[:b.n]
	written, err := b.vector.WriteTo(w)
	for i := range b.n {
		b.pieces[i].Free()
		b.pieces[i], b.data[i] = nil, nil
	}
	b.vector, b.n, b.size = nil, 0, 0
	bursts.Put(b)
	return written, err
}

// awaitData waits, with mu held, until there is something to read.
func (s *Session) awaitData() error {
	for {
		switch {
		case s.closed:
			s.dropCurrent()
			return net.ErrClosed
		case s.readUntil.expired:
			return os.ErrDeadlineExceeded
		case s.readClosed:
			s.dropCurrent()
			return io.EOF
		case s.cur != nil || s.recvQ.size > 0:
			return nil
		case s.finRecv:
			return io.EOF
		case s.err != nil:
			return s.err
		}
		s.readable.Wait()
	}
}

// dropCurrent releases the piece that a Read was in the middle of.
func (s *Session) dropCurrent() {
	if s.cur != nil {
		s.cur.Free()
		s.cur = nil
	}
}
