package mux

import (
	"errors"
	"io"
	"net"

	"github.com/culvertdev/culvert/internal/buffer"
)

// WriteTo implements [io.WriterTo]: it writes the pieces as they arrived,
// without copying them.
func (s *Session) WriteTo(w io.Writer) (int64, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	var total int64
	for {
		s.link.mu.Lock()
		if err := s.awaitData(); err != nil {
			s.link.mu.Unlock()
			return total, endOfStream(err)
		}
		b := s.takeBurst()
		s.link.mu.Unlock()
		n, err := s.deliver(b, w)
		total += n
		if err != nil {
			return total, err
		}
	}
}

// deliver writes b to w and gives credit for it: only then, so that a slow w
// holds the peer back.
func (s *Session) deliver(b *burst, w io.Writer) (int64, error) {
	size := b.size
	n, err := b.writeTo(w)
	s.link.mu.Lock()
	s.consumed(size)
	s.link.mu.Unlock()
	return n, err
}

// endOfStream turns the end of the peer's bytes into no error.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Pump does what WriteTo does, but returns at once and has a goroutine only
// while there are bytes to write: a session that waits costs none. It calls done,
// once, with what WriteTo would return; every session ends, at the latest with
// its link, so done is always called. Nobody else may read the session
// meanwhile: they would wait for ever.
func (s *Session) Pump(w io.Writer, done func(n int64, err error)) {
	p := &pump{session: s, w: w, done: done}
	p.loop = p.run
	if c, ok := w.(net.Conn); ok {
		p.socket = buffer.NewSocket(c)
	}
	s.readMu.Lock() // released in finish
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.pump = p
	if ready, err := s.readState(); ready || err != nil {
		s.pump.start()
	}
}

// pump is a Pump under way.
type pump struct {
	session *Session
	w       io.Writer
	socket  *buffer.Socket // w, where it is one; else nil
	done    func(int64, error)
	loop    func() // run, made once so that starting it allocates nothing
	total   int64  // of whoever runs it
	running bool   // somebody does; guarded by the link's mu
}

// start makes somebody write: a goroutine, or the receive loop where the one
// frame that it handles is all there is, for which waking another thread would
// take longer than the writing. mu is held.
func (p *pump) start() {
	p.running = true
	l := p.session.link
	if l.lone && l.woken == nil && p.socket != nil && p.session.recvQ.size < smallWrite {
		l.woken = p
		return
	}
	go p.loop()
}

// run writes until there is nothing to write.
func (p *pump) run() {
	for b := p.next(); b != nil; b = p.next() {
		n, err := p.session.deliver(b, p.w)
		p.total += n
		if err != nil {
			p.finish(err)
			return
		}
	}
}

// next takes what is to be written. It returns nil when there is nothing now,
// and the next byte starts the pump again, or when there will never be.
func (p *pump) next() *burst {
	s := p.session
	s.link.mu.Lock()
	ready, err := s.readState()
	if err == nil && !ready {
		p.running = false
	}
	if ready {
		b := s.takeBurst()
		s.link.mu.Unlock()
		return b
	}
	s.link.mu.Unlock()
	if err != nil {
		p.finish(endOfStream(err))
	}
	return nil
}

// runHere writes in the receive loop what the connection takes at once, and
// leaves everything else to a goroutine, since the loop must not wait.
func (p *pump) runHere() {
	s := p.session
	s.link.mu.Lock()
	if ready, err := s.readState(); !ready || err != nil {
		s.link.mu.Unlock()
		go p.loop() // an end may have to be told, which can take time
		return
	}
	b := s.takeBurst()
	s.link.mu.Unlock()
	n := 0
	var err error
	if b.n == 1 {
		n, err = p.socket.TryWrite(b.data[0])
	}
	p.total += int64(n)
	switch {
	case err != nil:
		size := b.size
		b.free()
		s.link.mu.Lock()
		s.consumed(size)
		s.link.mu.Unlock()
		go p.finish(err)
		return
	case n < b.size:
		go p.runRest(b, n)
		return
	}
	b.free()
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.consumed(n)
	if ready, err := s.readState(); ready || err != nil {
		go p.loop()
		return
	}
	p.running = false
}

// runRest goes on after the first n bytes of b.
func (p *pump) runRest(b *burst, n int) {
	b.data[0] = b.data[0][n:]
	written, err := p.session.deliver(b, p.w)
	p.total += written
	if err != nil {
		p.finish(err)
		return
	}
	p.run()
}

// finish ends the pump and tells its owner.
func (p *pump) finish(err error) {
	s := p.session
	s.link.mu.Lock()
	s.pump = nil
	s.link.mu.Unlock()
	s.readMu.Unlock()
	p.done(p.total, err)
}
