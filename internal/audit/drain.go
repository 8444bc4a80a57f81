package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// gather is how long events wait for more of them, so that a busy hub makes
	// one write of hundreds of lines. It is what a killed process loses.
	gather = 20 * time.Millisecond
	// firstPause and maxPause are between the attempts of a failing sink.
	firstPause = 100 * time.Millisecond
	maxPause   = 30 * time.Second
	// tellEvery bounds how often the log says that events are lost.
	tellEvery = time.Minute
	// endGrace is how long a sink has to notice that it was given up.
	endGrace = time.Second
)

// sink is where lines go. One goroutine uses it.
type sink interface {
	// write takes lines from the start of p, some or all, and returns how many
	// bytes. What it did not take, it gets again, also after an error. A
	// [*refusedError] means that what it took is lost.
	write(ctx context.Context, p []byte) (int, error)
	// close is called once, after the last write.
	close() error
}

// refusedError is an error that another attempt would not change.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// laterError is an error that comes with the time of the next attempt.
type laterError struct {
	err   error
	after time.Duration
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// drain is a queue and the goroutine that empties it into a sink.
type drain struct {
	name   string
	sink   sink
	queue  *queue
	lose   bool
	gather time.Duration
	log    *slog.Logger

	life context.Context
	stop context.CancelFunc
	done chan struct{}
	// closeErr is what closing the sink gave; read it after done.
	closeErr error

	written, dropped, failures atomic.Uint64
	// told is how many of dropped the log has spoken of, and toldAt when; they
	// belong to run.
	told   uint64
	toldAt time.Time
}

func newDrain(name string, s sink, limit int, full WhenFull, gather time.Duration, log *slog.Logger) *drain {
	life, stop := context.WithCancel(context.Background())
	return &drain{
		name: name, sink: s, queue: newQueue(limit), lose: full != WhenFullBlock, gather: gather, log: log,
		life: life, stop: stop, done: make(chan struct{}),
	}
}

// add queues one line, or counts it as dropped.
func (d *drain) add(l []byte) {
	for {
		ok, room := d.queue.put(l, d.lose)
		if ok {
			return
		}
		if room == nil {
			d.dropped.Add(1)
			return
		}
		<-room
	}
}

// run writes what is queued. It ends when the queue is closed and empty, or with
// the life of the drain. The drain's Log starts it and waits for it.
func (d *drain) run() {
	defer close(d.done)
	defer func() { d.closeErr = d.sink.close() }()
	defer d.tell(true)
	wait := time.NewTimer(d.gather)
	defer wait.Stop()
	for {
		select {
		case <-d.queue.ready:
			wait.Reset(d.gather)
			select {
			case <-wait.C:
			case <-d.queue.hurried():
			}
		case <-d.queue.ended:
		}
		d.tell(false)
		p, lines := d.queue.take()
		if lines == 0 {
			return
		}
		if !d.deliver(p, lines) {
			return
		}
	}
}

// tell says in the log that events were lost, now and then and at the end.
func (d *drain) tell(atOnce bool) {
	dropped := d.dropped.Load()
	if dropped == d.told || !atOnce && time.Since(d.toldAt) < tellEvery {
		return
	}
	d.log.Error("audit events are lost", "sink", d.name, "events", dropped-d.told)
	d.told, d.toldAt = dropped, time.Now()
}

// deliver writes all of p, as often as that takes. It reports false when the
// drain was given up before.
func (d *drain) deliver(p []byte, lines int) bool {
	var failing time.Time
	pause := firstPause
	for len(p) > 0 {
		n, err := d.sink.write(d.life, p)
		taken := bytes.Count(p[:n], []byte{'\n'})
		p = p[n:]
		lines -= taken
		if refused, ok := errors.AsType[*refusedError](err); ok {
			d.failures.Add(1)
			d.dropped.Add(uint64(taken))
			d.log.Error("the audit sink refused events", "sink", d.name, "events", taken, "error", refused.err)
			err = nil
		} else {
			d.written.Add(uint64(taken))
		}
		d.queue.settle(taken)
		switch {
		case err == nil:
			pause = firstPause
			if !failing.IsZero() {
				d.log.Info("the audit sink works again", "sink", d.name, "after", time.Since(failing))
				failing = time.Time{}
			}
			continue
		case d.life.Err() != nil:
			return false
		}
		d.failures.Add(1)
		if failing.IsZero() {
			failing = time.Now()
			d.log.Error("the audit sink does not work; it is tried again", "sink", d.name, "error", err)
		}
		if !d.sleep(d.pauseAfter(err, pause)) {
			return false
		}
		pause = min(2*pause, maxPause)
	}
	return true
}

// pauseAfter returns how long to wait after err: what it asks for, or about as
// long as pause.
func (*drain) pauseAfter(err error, pause time.Duration) time.Duration {
	if later, ok := errors.AsType[*laterError](err); ok {
		return min(later.after, maxPause)
	}
	return pause/2 + rand.N(pause/2+1) //nolint:gosec // spreads attempts; nobody gains by guessing
}

// sleep reports false when the drain was given up.
func (d *drain) sleep(pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-d.life.Done():
		return false
	}
}

// end waits until the closed queue is empty, or gives up with ctx.
func (d *drain) end(ctx context.Context) error {
	defer d.stop()
	select {
	case <-d.done:
	case <-ctx.Done():
		d.stop()
		grace := time.NewTimer(endGrace)
		defer grace.Stop()
		select {
		case <-d.done:
		case <-grace.C:
			_, lines, _ := d.queue.state()
			return fmt.Errorf("close audit %s: it did not end, %d events are not written: %w", d.name, lines, context.Cause(ctx))
		}
	}
	if _, lines, _ := d.queue.state(); lines > 0 {
		d.dropped.Add(lines)
		return errors.Join(fmt.Errorf("close audit %s: %d events are not written: %w", d.name, lines, context.Cause(ctx)), d.closeErr)
	}
	if d.closeErr != nil {
		return fmt.Errorf("close audit %s: %w", d.name, d.closeErr)
	}
	return nil
}
