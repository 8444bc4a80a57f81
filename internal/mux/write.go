package mux

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/buffer"
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
			s.queue(n)
			s.schedule()
			s.link.mu.Unlock()
		} else {
			s.link.mu.Unlock()
			if err := s.enqueue(buffer.Copy(p[:n])); err != nil {
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
	s.queue(b.Len())
	s.sendQ.push(b)
	s.schedule()
	return nil
}

// ReadFrom implements [io.ReaderFrom]: it reads into the buffers that are sent,
// without a copy. The buffer grows while r fills it; from a socket that is quiet
// no buffer is held at all. While it waits for r, others may write.
func (s *Session) ReadFrom(r io.Reader) (int64, error) {
	in := newSource(r)
	var total int64
	size := firstTail
	for {
		room, err := s.roomForOne()
		if err != nil {
			return total, err
		}
		size = min(size, max(room, firstTail))
		buf, rerr := in.read(size)
		if buf != nil {
			n := len(*buf)
			if err := s.send(fitting(buf)); err != nil {
				return total, err
			}
			total += int64(n)
			switch {
			case n == size:
				size = min(2*size, maxReadBuffer)
			case n < size/4:
				size = max(size/2, firstTail)
			}
		}
		if errors.Is(rerr, io.EOF) {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// ReadFromConn is ReadFrom that also ends while it waits for r, once the peer reads no
// more: with an error that is [syscall.EPIPE], and a read deadline of r that is past.
// There is one at a time.
func (s *Session) ReadFromConn(r net.Conn) (int64, error) {
	s.fromMu.Lock()
	defer s.fromMu.Unlock()
	i := &interruption{of: r}
	s.setInterruption(i)
	n, err := s.ReadFrom(r)
	s.setInterruption(nil)
	i.running.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) && s.isStopped() {
		err = errStopped
	}
	return n, err
}

// interruption ends the wait of a ReadFromConn for bytes that nobody wants any more.
type interruption struct {
	of      net.Conn
	running sync.WaitGroup
}

// start returns at once: the source may be a session, whose lock its caller may hold.
func (i *interruption) start() {
	i.running.Go(func() { _ = i.of.SetReadDeadline(time.Unix(1, 0)) }) // fails where its Read fails, too
}

// setInterruption says what is to be interrupted, nil when nothing is.
func (s *Session) setInterruption(i *interruption) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.interruption = i
	if i != nil && s.stopRecv {
		i.start()
	}
}

func (s *Session) isStopped() bool {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.stopRecv
}

// fitting returns what was read in a buffer that is not much larger; it takes buf
// over.
func fitting(buf *[]byte) mem.Buffer {
	if n := len(*buf); n >= cap(*buf)/2 || n < copyBelow { // the queue copies what is that small
		return mem.NewBuffer(buf, buffer.Pool())
	}
	b := buffer.Copy(*buf)
	buffer.Pool().Put(buf)
	return b
}

// source reads into pooled buffers.
type source struct {
	reader io.Reader
	socket *buffer.Socket // nil for a reader that is none
}

func newSource(r io.Reader) source {
	if c, ok := r.(net.Conn); ok {
		return source{reader: r, socket: buffer.NewSocket(c)}
	}
	return source{reader: r}
}

// read returns a buffer of at most size bytes, nil when there were none.
func (in source) read(size int) (*[]byte, error) {
	if in.socket != nil {
		return in.socket.Read(size)
	}
	buf := buffer.Pool().Get(size)
	n, err := in.reader.Read(*buf)
	if n == 0 {
		buffer.Pool().Put(buf)
		return nil, err
	}
	*buf = (*buf)[:n]
	return buf, err
}

const maxReadBuffer = 128 << 10

// sendRoom returns how much the session may have queued for sending: little while
// the peer gives no credit for more, or while all sessions together have much.
func (s *Session) sendRoom() int {
	cfg := &s.link.cfg
	if s.sendOff >= s.sendLimit || cfg.Budget.crowded() {
		return min(cfg.MinWindow, cfg.SendBuffer)
	}
	return cfg.SendBuffer
}

// dropQueued forgets what was to be sent. mu is held.
func (s *Session) dropQueued() {
	s.queue(-s.sendQ.size)
	s.sendQ.drop()
}

// roomForOne waits until the queue takes bytes, and returns how many. Another writer may
// be quicker.
func (s *Session) roomForOne() (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.waitRoom()
}

// send queues b as soon as there is room, and takes it over.
func (s *Session) send(b mem.Buffer) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if _, err := s.waitRoom(); err != nil {
		b.Free()
		return err
	}
	return s.enqueue(b)
}

// waitRoom is awaitRoom for the one writer, without mu.
func (s *Session) waitRoom() (int, error) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.awaitRoom()
}

// awaitRoom waits, with mu held, until the queue takes bytes, and returns how
// many.
func (s *Session) awaitRoom() (int, error) {
	for {
		if err := s.writeError(); err != nil {
			return 0, err
		}
		if room := s.sendRoom() - s.sendQ.size; room > 0 {
			return room, nil
		}
		s.writable.Wait()
	}
}

func (s *Session) writeError() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.writeUntil.over():
		return os.ErrDeadlineExceeded
	case s.err != nil:
		return s.err
	case s.failure != nil:
		return s.failure
	case s.stopRecv:
		return errStopped
	case s.finQueued:
		return net.ErrClosed
	default:
		return nil
	}
}
