package client

import (
	"context"
	"os"
	"sync"
	"time"
)

// deadline is a time that others wait for while it is set again, as [net.Conn] wants it.
// The zero value never comes.
type deadline struct {
	mu    sync.Mutex
	until time.Time
	timer *time.Timer
	over  chan struct{} // closed when the time has come; made when somebody asks
}

// set changes the time, also for who waits.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop()
	d.until = t
	if d.over == nil || isClosed(d.over) {
		d.over = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.over)
		return
	}
	over := d.over
	d.timer = time.AfterFunc(wait, func() { close(over) }) // the only one: who stops it in time makes another
}

// stop ends the timer. Where it has fired already, what it closes is closed before anybody
// looks at it. mu is held.
func (d *deadline) stop() {
	if d.timer != nil && !d.timer.Stop() {
		<-d.over
	}
	d.timer = nil
}

// end ends the timer for good and returns the time.
func (d *deadline) end() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop()
	return d.until
}

// wait returns what is closed when the time has come, or comes after another set.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

// bound returns a context that ends when the time has come, with [os.ErrDeadlineExceeded].
func (d *deadline) bound(parent context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	over := d.wait()
	if isClosed(over) {
		cancel(os.ErrDeadlineExceeded)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-over:
			cancel(os.ErrDeadlineExceeded)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
