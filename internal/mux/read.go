package mux

import (
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

const maxPiece = 1 << 30

// awaitData waits, with mu held, until there is something to read.
func (s *Session) awaitData() error {
	for {
		if ready, err := s.readState(); ready || err != nil {
			return err
		}
		s.readable.Wait()
	}
}

// readState tells, with mu held, whether there is something to read, or why
// there will never be.
func (s *Session) readState() (ready bool, err error) {
	switch {
	case s.closed:
		s.dropCurrent()
		return false, net.ErrClosed
	case s.readUntil.over():
		return false, os.ErrDeadlineExceeded
	case s.cutOff: // must not look orderly here either
		s.dropCurrent()
		return false, s.failure
	case s.readClosed:
		s.dropCurrent()
		return false, io.EOF
	case s.cur != nil || s.recvQ.size > 0:
		return true, nil
	case s.finRecv:
		return false, io.EOF
	case s.err != nil:
		return false, s.err
	default:
		return false, nil
	}
}

// wakeReaders tells whoever waits for bytes, for their end or for an error that
// there may be something. mu is held.
func (s *Session) wakeReaders() {
	s.readable.Broadcast()
	if s.pump != nil && !s.pump.running {
		s.pump.start()
	}
}

// dropCurrent releases the piece that a Read was in the middle of.
func (s *Session) dropCurrent() {
	if s.cur != nil {
		s.cur.Free()
		s.cur = nil
	}
}
