package mux

import (
	"errors"
	"io"
	"net"
	"os"

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
	var pieces []mem.Buffer
	var iov [maxVector][]byte
	for {
		s.link.mu.Lock()
		err := s.awaitData()
		if err != nil {
			s.link.mu.Unlock()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		n := 0
		if s.cur != nil {
			pieces = append(pieces, s.cur)
			n, s.cur = s.cur.Len(), nil
		}
		for len(pieces) < maxVector && n < maxBurst && s.recvQ.size > 0 {
			b := s.recvQ.pop(maxPiece)
			n += b.Len()
			pieces = append(pieces, b)
		}
		s.link.mu.Unlock()

		vector := net.Buffers(iov[:0])
		for _, b := range pieces {
			vector = append(vector, b.ReadOnlyData())
		}
		written, err := vector.WriteTo(w)
		total += written
		for i, b := range pieces {
			b.Free()
			pieces[i] = nil
		}
		pieces = pieces[:0]
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
