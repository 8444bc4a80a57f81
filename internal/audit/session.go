package audit

import (
	"crypto/rand"
	"strings"
	"sync"
	"time"
)

// Session writes the lines of one session: at its start, every so often while it
// is open, and at its end. It is safe for concurrent use; a nil Session does
// nothing.
type Session struct {
	log      *Log
	progress func(*Event)
	id       string

	mu    sync.Mutex
	event Event
	timer *time.Timer
	ended bool
}

// Begin writes the line of a session's start and returns the Session, which the
// caller ends. A copy of e describes the session in all of its lines, with e's own
// slices, which must not change any more; a missing SessionID is made up. progress brings Received and Sent, and whatever else
// changes, up to date before each further line; it is called in a goroutine of
// its own or by End, never twice at a time, and may be nil.
func (l *Log) Begin(e *Event, progress func(*Event)) *Session {
	if l == nil {
		return nil
	}
	s := &Session{log: l, progress: progress, event: *e}
	s.event.keep()
	if s.event.SessionID == "" {
		s.event.SessionID = rand.Text()
	}
	s.id = s.event.SessionID
	s.event.Stage = StageSessionStart
	l.Record(&s.event)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(l.interval, s.tick)
	return s
}

// ID returns the SessionID of the lines, "" of a nil Session.
func (s *Session) ID() string {
	if s == nil {
		return ""
	}
	return s.id
}

// tick writes the line of an interval. A timer starts it in a goroutine, which
// ends with it.
func (s *Session) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.event.Stage = StageSessionInterval
	s.update()
	s.log.Record(&s.event)
	s.timer.Reset(s.log.interval)
}

func (s *Session) update() {
	if s.progress != nil {
		s.progress(&s.event)
	}
}

// End writes the line of the session's end, after finish has said how that was;
// finish may be nil. No line comes after it, and a second End does nothing.
func (s *Session) End(finish func(*Event)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.timer.Stop()
	s.event.Stage = StageSessionEnd
	s.update()
	if finish != nil {
		finish(&s.event)
	}
	s.log.Record(&s.event)
}

// keep makes e hold no more of its strings than a line can show. The path and
// the sentences are the ones whose length others choose.
func (e *Event) keep() {
	for _, field := range []struct {
		text  *string
		limit int
	}{{&e.Path, maxPath}, {&e.Target, maxText}, {&e.Reason, maxText}, {&e.Error, maxText}} {
		if s := *field.text; len(s) > 2*field.limit+1 {
			*field.text = strings.Clone(s[:2*field.limit+1])
		}
	}
	e.Path = withoutQuery(e.Path)
}
