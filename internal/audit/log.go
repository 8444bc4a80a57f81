package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// admitTimeout is how long [Log.Admit] waits for room.
const admitTimeout = 5 * time.Second

// Log takes events and writes them to its sinks. It is safe for concurrent use.
// A nil Log is one without sinks: it takes everything and writes nothing.
type Log struct {
	opts     Options
	interval time.Duration
	drains   []*drain
	blocks   bool
	scratch  sync.Pool
	metrics  *metrics
	closing  sync.Once
	closed   error
}

// New opens the sinks of cfg. It returns nil, nil when there are none. The caller
// closes the Log.
func New(cfg Config, opts Options) (*Log, error) {
	if !cfg.Enabled() {
		return nil, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if opts.Logger == nil || cfg.Stdout != nil && opts.Stdout == nil {
		return nil, errors.New("audit: Options.Logger, and Options.Stdout where Config.Stdout is set, are required")
	}
	if opts.Hop == wire.HopUnspecified {
		opts.Hop = wire.HopHub
	}
	l := &Log{opts: opts, interval: orDuration(cfg.Interval, DefaultInterval)}
	l.scratch.New = func() any { return new([]byte) }
	limit := int(orSize(cfg.Queue, DefaultQueue))
	if c := cfg.File; c != nil {
		file, err := openFile(*c)
		if err != nil {
			return nil, fmt.Errorf("audit: file: %w", err)
		}
		l.add(newDrain("file", file, limit, c.WhenFull, gather, opts.Logger))
	}
	if c := cfg.Stdout; c != nil {
		l.add(newDrain("stdout", stream{opts.Stdout}, limit, c.WhenFull, gather, opts.Logger))
	}
	if c := cfg.Webhook; c != nil {
		hook := newWebhook(*c)
		l.add(newDrain("webhook", hook, limit, c.WhenFull, orDuration(c.BatchWait, DefaultBatchWait), opts.Logger))
	}
	var err error
	if l.metrics, err = newMetrics(opts.Meters, l.drains); err != nil {
		for _, d := range l.drains {
			err = errors.Join(err, d.sink.close())
		}
		return nil, fmt.Errorf("audit: metrics: %w", err)
	}
	for _, d := range l.drains {
		go d.run()
	}
	return l, nil
}

func (l *Log) add(d *drain) {
	l.drains = append(l.drains, d)
	l.blocks = l.blocks || !d.lose
}

// Record writes the line of e, which it does not keep. It returns when the event
// is queued for every sink or was lost: it waits only for full sinks that are set
// to block, and for those until there is room or the Log is closed. It does not
// give up with a request: that has happened.
func (l *Log) Record(e *Event) {
	if l == nil {
		return
	}
	buf, ok := l.scratch.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	if e.Hub == "" && l.opts.Hub != "" {
		with := *e
		with.Hub = l.opts.Hub
		e = &with
	}
	*buf = appendEvent((*buf)[:0], e, time.Now())
	for _, d := range l.drains {
		d.add(*buf)
	}
	l.scratch.Put(buf)
}

// Admit reports whether something may begin of which a line will be written. With
// sinks that lose events when they are full it always may. With those that block,
// Admit waits for room, 5 s at most, and then fails with a [*fault.Error] of code
// unavailable, so that nothing happens unseen.
func (l *Log) Admit(ctx context.Context) error {
	if l == nil || !l.blocks {
		return nil
	}
	for _, d := range l.drains {
		if d.lose {
			continue
		}
		if room := d.queue.full(); room != nil {
			if err := l.await(ctx, d, room); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) await(ctx context.Context, d *drain, room <-chan struct{}) error {
	timeout := time.NewTimer(admitTimeout)
	defer timeout.Stop()
	for ; room != nil; room = d.queue.full() {
		select {
		case <-room:
		case <-timeout.C:
			return &fault.Error{
				Hop: l.opts.Hop, Op: "audit", Code: wire.CodeUnavailable, RetryAfter: admitTimeout,
				Err: fmt.Errorf("the audit %s takes no events, and is set to refuse what it cannot record", d.name),
			}
		case <-ctx.Done():
			return &fault.Error{Hop: wire.HopClient, Op: "audit", Code: wire.CodeCanceled, Err: context.Cause(ctx)}
		}
	}
	return nil
}

// Unblock lets nobody wait for a full sink any more: from now on every sink loses
// what it has no room for. It is for the end of a process, which waits for those
// that record their last events before it closes the Log.
func (l *Log) Unblock() {
	if l == nil {
		return
	}
	for _, d := range l.drains {
		d.queue.unblock()
	}
}

// Flush waits until every event that was recorded before is written, or is lost
// for good, or ctx ends.
func (l *Log) Flush(ctx context.Context) error {
	if l == nil {
		return nil
	}
	var failed []error
	for _, d := range l.drains {
		if err := d.queue.flush(ctx); err != nil {
			failed = append(failed, fmt.Errorf("flush audit %s: %w", d.name, err))
		}
	}
	return errors.Join(failed...)
}

// Close writes what is queued, for as long as ctx allows, and closes the sinks.
// Events that come later are lost and counted. Its error says how many lines did
// not get written. Calls after the first one return the same.
//
// A standard output that nobody reads cannot be closed: then its goroutine stays
// with the unfinished write until the process ends.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.closing.Do(func() { l.closed = l.close(ctx) })
	return l.closed
}

func (l *Log) close(ctx context.Context) error {
	// All at once: they share the time that there is.
	for _, d := range l.drains {
		d.queue.close()
	}
	var failed []error
	for _, d := range l.drains {
		if err := d.end(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	if err := l.metrics.close(); err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
