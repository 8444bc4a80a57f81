package mux

import (
	"errors"
	"io"
	"net"
	"os"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// smallWrite is up to which size a write is copied under the link's lock.
	smallWrite = copyBelow
	// writePiece is the largest piece that a write is cut into.
	writePiece = 64 << 10
)

// Write implements [net.Conn]. It returns once p is queued; the queue is
// delivered even when Close follows. It blocks while the queue is full.
func (s *Session) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	total := 0
	for first := true; first || len(p) > 0; first = false {
		s.link.mu.Lock()
		room, err := s.awaitRoom()
		if err != nil {
			s.link.mu.Unlock()
			return total, err
		}
		n := min(len(p), room, writePiece)
		if n < smallWrite {
			s.sendQ.append(p[:n])
			s.schedule()
			s.link.mu.Unlock()
		} else {
			s.link.mu.Unlock()
			if err := s.enqueue(wire.CopyBuffer(p[:n])); err != nil {
				return total, err
			}
		}
		total += n
		p = p[n:]
	}
	return total, nil
}

// enqueue queues b and takes it over. There was room before, and only the one
// writer takes room.
func (s *Session) enqueue(b mem.Buffer) error {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	if err := s.writeError(); err != nil {
		b.Free()
		return err
	}
	s.sendQ.push(b)
	s.schedule()
	return nil
}

// ReadFrom implements [io.ReaderFrom]: it reads into the buffers that are sent,
// without a copy. The buffer grows while r fills it, so that a quiet r costs
// little memory.
func (s *Session) ReadFrom(r io.Reader) (int64, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	var total int64
	size := firstTail
	for {
		s.link.mu.Lock()
		room, err := s.awaitRoom()
		if err != nil {
			s.link.mu.Unlock()
			return total, err
		}
		size = min(size, max(room, firstTail))
		s.link.mu.Unlock()

		buf := wire.Pool().Get(size)
		n, rerr := r.Read(*buf)
		if n > 0 {
			*buf = (*buf)[:n]
			if err := s.enqueue(mem.NewBuffer(buf, wire.Pool())); err != nil {
				return total, err
			}
			total += int64(n)
		} else {
			wire.Pool().Put(buf)
		}
		switch {
		case errors.Is(rerr, io.EOF):
			return total, nil
		case rerr != nil:
			return total, rerr
		case n == size:
			size = min(2*size, maxReadBuffer)
		case n < size/4:
			size = max(size/2, firstTail)
		}
	}
}

const maxReadBuffer = 128 << 10

// awaitRoom waits, with mu held, until the queue takes bytes, and returns how
// many.
func (s *Session) awaitRoom() (int, error) {
	for {
		if err := s.writeError(); err != nil {
			return 0, err
		}
		if room := s.link.cfg.SendBuffer - s.sendQ.size; room > 0 {
			return room, nil
		}
		s.writable.Wait()
	}
}

func (s *Session) writeError() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.writeUntil.expired:
		return os.ErrDeadlineExceeded
	case s.err != nil:
		return s.err
	case s.stopRecv:
		return errStopped
	case s.finQueued:
		return net.ErrClosed
	default:
		return nil
	}
}
