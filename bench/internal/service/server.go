package service

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"sync"
	"time"
)

// A Narrow source writes a block an interval.
const (
	narrowBlock    = 8 << 10
	narrowInterval = 25 * time.Millisecond
)

// ackInterval is how often a sink tells what it has read.
const ackInterval = 20 * time.Millisecond

// Server serves the operations. It is safe for concurrent use; the zero value is
// ready.
type Server struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	kept   map[uint64]chan [DigestSize]byte // by seed; each gives one digest
	closed bool
}

// halfCloser is the part of a connection that ends one direction.
type halfCloser interface{ CloseWrite() error }

// Serve accepts from l until ctx ends or l fails, and returns when every
// connection is over. Ending cuts them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close(); s.cut() })
	defer stop()
	var serves sync.WaitGroup
	defer serves.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil // told to end, the error is the consequence
			}
			s.cut()
			return fmt.Errorf("service: accept: %w", err)
		}
		if !s.add(c) {
			_ = c.Close() // too late for it
			continue
		}
		serves.Go(func() { s.handle(c) })
	}
}

func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = make(map[net.Conn]struct{})
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close() // wakes its goroutine, which says the rest
	}
}

// handle serves one connection. Errors end it and nothing else: what the client
// sees is what is measured.
func (s *Server) handle(c net.Conn) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
	}()
	var op [1]byte
	if _, err := io.ReadFull(c, op[:]); err != nil {
		return
	}
	switch op[0] {
	case Echo:
		echo(c)
	case Source:
		source(c)
	case Narrow:
		narrow(c)
	case Sink:
		sink(c)
	case Generate:
		s.generate(c)
	case Digest:
		digest(c)
	case Recall:
		s.recall(c)
	}
}

func echo(c net.Conn) {
	// Small, so that thousands of idle echoes cost little.
	buf := make([]byte, 4<<10)
	for {
		n, err := c.Read(buf)
		if _, werr := c.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

func source(c net.Conn) {
	for block := Block(); ; {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// narrow is a source with a small buffer that writes so slowly that the kernel has
// no reason to make the buffers on the way larger.
func narrow(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok && t.SetWriteBuffer(NarrowBuffer) != nil {
		return
	}
	ticker := time.NewTicker(narrowInterval)
	defer ticker.Stop()
	for block := Block()[:narrowBlock]; ; <-ticker.C {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// sink answers with the count so far, at most once an interval, so that a client
// knows what has arrived and not only what it has written.
func sink(c net.Conn) {
	block := make([]byte, BlockSize)
	var count [8]byte
	var total uint64
	var told time.Time
	for {
		n, err := c.Read(block)
		total += uint64(n)
		if now := time.Now(); now.Sub(told) >= ackInterval {
			told = now
			binary.BigEndian.PutUint64(count[:], total)
			if _, err := c.Write(count[:]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func readNumber(c net.Conn) (uint64, error) {
	var raw [8]byte
	if _, err := io.ReadFull(c, raw[:]); err != nil {
		return 0, fmt.Errorf("read number: %w", err)
	}
	return binary.BigEndian.Uint64(raw[:]), nil
}

func (s *Server) generate(c net.Conn) {
	n, err := readNumber(c)
	if err != nil {
		return
	}
	seed, err := readNumber(c)
	if err != nil {
		return
	}
	if err := copyN(c, Stream(seed), n); err != nil {
		return
	}
	if h, ok := c.(halfCloser); ok && h.CloseWrite() != nil {
		return
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, c); err == nil {
		s.keep(seed) <- [DigestSize]byte(sum.Sum(nil))
	}
}

func copyN(w io.Writer, r io.Reader, n uint64) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(r, int64(n)), make([]byte, BlockSize)); err != nil {
		return fmt.Errorf("send the stream: %w", err)
	}
	return nil
}

// keep returns the place of a seed's digest.
func (s *Server) keep(seed uint64) chan [DigestSize]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[uint64]chan [DigestSize]byte)
	}
	if s.kept[seed] == nil {
		s.kept[seed] = make(chan [DigestSize]byte, 1)
	}
	return s.kept[seed]
}

// recallTime bounds the wait for a digest.
const recallTime = 10 * time.Second

func (s *Server) recall(c net.Conn) {
	seed, err := readNumber(c)
	if err != nil {
		return
	}
	late := time.NewTimer(recallTime)
	defer late.Stop()
	select {
	case sum := <-s.keep(seed):
		_, _ = c.Write(sum[:]) // a client that has gone needs no answer
	case <-late.C:
	}
}

func digest(c net.Conn) {
	n, err := readNumber(c)
	if err != nil {
		return
	}
	sum := sha256.New()
	if err := readInto(sum, c, n); err != nil {
		return
	}
	_, _ = c.Write(sum.Sum(nil)) // a client that has gone needs no answer
}

// readInto reads n bytes, or to the end when n is 0.
func readInto(sum hash.Hash, c net.Conn, n uint64) error {
	from := io.Reader(struct{ io.Reader }{c})
	if n > 0 {
		from = io.LimitReader(from, int64(n))
	}
	got, err := io.CopyBuffer(sum, from, make([]byte, BlockSize))
	if err == nil && n > 0 && uint64(got) < n {
		err = errors.New("the stream ended early")
	}
	return err
}
