package splice

import (
	"fmt"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// idleChecks is how often in an idle time a session is looked at: it is cut at
// most this part of it late.
const idleChecks = 8

// CutIdle resets a session over which no byte has gone for the time idle, in
// either direction, with hop and [wire.CodeDeadlineExceeded]. It is never cut
// earlier, and at most an eighth of idle later. The function it returns ends the
// watch; it has to be called.
//
// It looks at what the session has counted, so that it costs a timer for each
// session and nothing for each byte.
func CutIdle(s *mux.Session, idle time.Duration, hop wire.Hop) (stop func()) {
	w := &idleWatch{session: s, idle: idle, hop: hop, since: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(idle/idleChecks, w.look)
	return w.stop
}

type idleWatch struct {
	session *mux.Session
	idle    time.Duration
	hop     wire.Hop

	mu      sync.Mutex // guards what follows
	timer   *time.Timer
	stopped bool
	moved   uint64    // bytes in both directions, at the last look
	since   time.Time // when they were seen to have changed
}

func (w *idleWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	stats, now := w.session.Stats(), time.Now()
	if moved := stats.Sent + stats.Received; moved != w.moved {
		w.moved, w.since = moved, now
	} else if now.Sub(w.since) >= w.idle {
		w.stopped = true
		w.session.Reset(wire.CodeDeadlineExceeded, w.hop, fmt.Sprintf("no byte for %v", w.idle))
		return
	}
	w.timer.Reset(w.idle / idleChecks)
}

func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
