package testbed

import (
	"sync"
	"time"
)

const (
	// beat is how often this process looks whether it runs.
	beat = 20 * time.Millisecond
	// heldUpFrom is from what on a look that comes late is worth to be kept.
	heldUpFrom = 100 * time.Millisecond
)

// delay is a time for which this process did not run though it wanted to.
type delay struct {
	end  time.Time
	late time.Duration
}

// delays are all since the first look, in their order.
var delays struct {
	mu  sync.Mutex
	all []delay
}

// HeldUp tells for how long the machine has kept this process from running since then: by
// how much timers of its own were late, which need next to nothing of a machine. Nobody
// else can be expected to have done much meanwhile. It is known where the process is
// isolated (see [Isolate]).
func HeldUp(since time.Time) (total time.Duration) {
	delays.mu.Lock()
	defer delays.mu.Unlock()
	for i := len(delays.all) - 1; i >= 0 && delays.all[i].end.After(since); i-- {
		total += min(delays.all[i].late, delays.all[i].end.Sub(since))
	}
	return total
}

// look asks to be called again after a beat, for as long as the process lives. There is no
// goroutine of it in between.
func look(last time.Time) {
	now := time.Now()
	keep(last, now)
	time.AfterFunc(beat, func() { look(now) })
}

// keep keeps by how much a look came late after the last one.
func keep(last, now time.Time) {
	if late := now.Sub(last) - beat; late >= heldUpFrom {
		delays.mu.Lock()
		defer delays.mu.Unlock()
		delays.all = append(delays.all, delay{now, late})
	}
}
