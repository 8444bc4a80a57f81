package front

import (
	"container/list"
	"fmt"
	"sync"
	"time"
)

// patience is how long a client may say nothing in a handshake while others wait
// for its place.
const patience = 2 * time.Second

// crowd is the connections whose handshake is under way. It is bounded: when it is
// full, the one that has been silent longest is cut once it has been for patience.
// So clients that say nothing take nobody's place for longer, however many they
// are, and many that do speak wait for each other. It is safe for concurrent use,
// but for enter.
type crowd struct {
	most     int
	patience time.Duration
	left     chan struct{} // somebody has left

	mu  sync.Mutex
	all list.List // of *waiting, silent longest first
}

// waiting is one connection of a crowd.
type waiting struct {
	crowd *crowd
	in    *list.Element // nil once it has left
	heard time.Time
	cut   func(error)
}

func newCrowd(most int, patience time.Duration) *crowd {
	return &crowd{most: most, patience: patience, left: make(chan struct{}, 1)}
}

// enter adds a connection, where needed after another has left or was cut. It
// returns nil when done closes before that. cut is called at most once, from the
// goroutine that calls enter, and must not wait. One goroutine at a time may call
// it.
func (c *crowd) enter(done <-chan struct{}, cut func(error)) *waiting {
	w := &waiting{crowd: c, cut: cut}
	for {
		victim, wait := c.admit(w)
		if victim != nil {
			victim.cut(fmt.Errorf("cut: nothing came from it for %v, and %d handshakes are under way", c.patience, c.most))
		}
		if wait == 0 {
			return w
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.left:
		case <-timer.C:
		case <-done:
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// admit adds w, in the place of the returned one where that is not nil, or says how
// long to wait.
func (c *crowd) admit(w *waiting) (victim *waiting, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all.Len() >= c.most {
		first, ok := c.all.Front().Value.(*waiting)
		if !ok {
			return nil, c.patience // admit alone adds
		}
		if silent := time.Since(first.heard); silent < c.patience {
			return nil, c.patience - silent
		}
		c.remove(first)
		victim = first
	}
	w.heard = time.Now()
	w.in = c.all.PushBack(w)
	return victim, 0
}

// hear notes that the client has said something.
func (w *waiting) hear() {
	w.crowd.mu.Lock()
	defer w.crowd.mu.Unlock()
	if w.in != nil {
		w.heard = time.Now()
		w.crowd.all.MoveToBack(w.in)
	}
}

// leave takes w out. It may be called after a cut, and more than once.
func (w *waiting) leave() {
	w.crowd.mu.Lock()
	w.crowd.remove(w)
	w.crowd.mu.Unlock()
	select {
	case w.crowd.left <- struct{}{}:
	default:
	}
}

// remove takes w out. mu is held.
func (c *crowd) remove(w *waiting) {
	if w.in != nil {
		c.all.Remove(w.in)
		w.in = nil
	}
}
