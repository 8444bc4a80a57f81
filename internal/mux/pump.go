package mux

import (
	"errors"
	"io"
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
	s.readMu.Lock() // released in finish
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.pump = &pump{session: s, w: w, done: done}
	if ready, err := s.readState(); ready || err != nil {
		s.pump.start()
	}
}

// pump is a Pump under way.
type pump struct {
	session *Session
	w       io.Writer
	done    func(int64, error)
	total   int64 // of run
	running bool  // there is a goroutine; guarded by the link's mu
}

// start begins to write. mu is held.
func (p *pump) start() {
	p.running = true
	go p.run()
}

// run writes until there is nothing to write.
func (p *pump) run() {
	s := p.session
	for {
		s.link.mu.Lock()
		ready, err := s.readState()
		if err != nil {
			s.pump = nil
			s.link.mu.Unlock()
			p.finish(endOfStream(err))
			return
		}
		if !ready {
			p.running = false
			s.link.mu.Unlock()
			return
		}
		b := s.takeBurst()
		s.link.mu.Unlock()
		n, err := s.deliver(b, p.w)
		p.total += n
		if err != nil {
			s.link.mu.Lock()
			s.pump = nil
			s.link.mu.Unlock()
			p.finish(err)
			return
		}
	}
}

func (p *pump) finish(err error) {
	p.session.readMu.Unlock()
	p.done(p.total, err)
}
