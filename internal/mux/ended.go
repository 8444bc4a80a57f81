package mux

// Stats returns a snapshot of the session, also after its end.
func (s *Session) Stats() SessionStats {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	return s.stats()
}

// AfterEnd has f called, once and in a goroutine of its own, when the session is
// over: both directions have ended, or it was reset or its link was lost, which err
// then says. What arrived and was not read may still be read by then. Where it is
// over already f is called at once. A later call takes the place of an earlier one.
func (s *Session) AfterEnd(f func(end SessionStats, err error)) {
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	s.ended = f
	if s.state == stateDone {
		s.tellEnd()
	}
}

// tellEnd calls what waits for the end. mu is held.
func (s *Session) tellEnd() {
	f := s.ended
	if f == nil {
		return
	}
	s.ended = nil
	var err error
	if s.err != nil {
		err = s.err
	}
	go f(s.stats(), err)
}
