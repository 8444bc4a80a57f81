package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/bench/internal/service"
	"github.com/culvertdev/culvert/bench/internal/stats"
)

// pingSize is the length of a message, in bytes.
const pingSize = 1 << 10

// Trips are the round trips that ended in a window.
type Trips struct {
	// Sorted are their times, ascending.
	Sorted  []time.Duration
	Elapsed time.Duration
}

// Rate returns round trips a second.
func (t Trips) Rate() float64 { return float64(len(t.Sorted)) / t.Elapsed.Seconds() }

// Micros returns a percentile in microseconds. It fails without round trips.
func (t Trips) Micros(p float64) (float64, error) {
	if len(t.Sorted) == 0 {
		return 0, fmt.Errorf("not one round trip in %v", t.Elapsed)
	}
	return float64(stats.Percentile(t.Sorted, p)) / float64(time.Microsecond), nil
}

// recorder collects the times of one loop while counting is on.
type recorder struct {
	counting *atomic.Bool
	trips    []time.Duration
}

func (r *recorder) add(d time.Duration) {
	if r.counting.Load() {
		r.trips = append(r.trips, d)
	}
}

// merge returns everything that was recorded; the loops must have ended.
func merge(records []recorder, elapsed time.Duration) Trips {
	t := Trips{Elapsed: elapsed}
	for _, r := range records {
		t.Sorted = append(t.Sorted, r.trips...)
	}
	slices.Sort(t.Sorted)
	return t
}

// PingPong sends 1 KiB in each of n sessions and waits until it is back, again
// and again. No round trip at all is no error: a tunnel may have stopped.
func (d Dialer) PingPong(ctx context.Context, n int, w Window) (Trips, error) {
	g, err := d.openGroup(ctx, n, service.Echo)
	if err != nil {
		return Trips{}, err
	}
	var counting atomic.Bool
	records := make([]recorder, n)
	for i := range records {
		records[i].counting = &counting
	}
	g.start(func(i int, c net.Conn) error { return pingPong(c, &records[i]) })
	elapsed, err := w.run(ctx, g.failed, counting.Store)
	err = errors.Join(err, g.Close())
	return merge(records, elapsed), err
}

func pingPong(c net.Conn, r *recorder) error {
	out, back := make([]byte, pingSize), make([]byte, pingSize)
	for {
		start := time.Now()
		if _, err := c.Write(out); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		if _, err := io.ReadFull(c, back); err != nil {
			return fmt.Errorf("pong: %w", err)
		}
		r.add(time.Since(start))
	}
}

// Setups opens sessions, sends one byte there and back in each, and closes them,
// by n workers at once. It returns how long each took.
func (d Dialer) Setups(ctx context.Context, n int, w Window) (Trips, error) {
	var counting atomic.Bool
	records := make([]recorder, n)
	g := &Group{conns: make([]net.Conn, n), failed: make(chan error, 1)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.start(func(i int, _ net.Conn) error {
		records[i].counting = &counting
		for ctx.Err() == nil {
			start := time.Now()
			c, err := d.open(ctx, service.Echo)
			if err != nil {
				return err
			}
			records[i].add(time.Since(start))
			if err := c.Close(); err != nil {
				return fmt.Errorf("close session: %w", err)
			}
		}
		return nil
	})
	elapsed, err := w.run(ctx, g.failed, counting.Store)
	g.over.Store(true)
	cancel(os.ErrDeadlineExceeded)
	err = errors.Join(err, g.Close())
	return merge(records, elapsed), err
}
