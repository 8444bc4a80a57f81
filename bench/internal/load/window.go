package load

import (
	"context"
	"time"
)

// Window is when a measurement takes place.
type Window struct {
	// Warmup passes first and does not count; Length counts.
	Warmup, Length time.Duration
	// Edge, when set, is called at both edges of the counted time, for figures that
	// are taken over the same time. It must be quick.
	Edge func(begin bool) error
}

// run waits for both edges and calls at at each. It returns how long the counted
// time really was. A failure that arrives first ends it.
func (w Window) run(ctx context.Context, failed <-chan error, at func(begin bool)) (time.Duration, error) {
	if err := wait(ctx, w.Warmup, failed); err != nil {
		return 0, err
	}
	if err := w.edge(true); err != nil {
		return 0, err
	}
	at(true)
	start := time.Now()
	if err := wait(ctx, w.Length, failed); err != nil {
		return 0, err
	}
	at(false)
	elapsed := time.Since(start)
	return elapsed, w.edge(false)
}

func (w Window) edge(begin bool) error {
	if w.Edge == nil {
		return nil
	}
	return w.Edge(begin)
}

// wait lets the load go on for d.
func wait(ctx context.Context, d time.Duration, failed <-chan error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
