package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/culvertdev/culvert/bench/internal/service"
)

// Group is a number of sessions that are open at once, each with a goroutine of
// its own. Close it.
type Group struct {
	conns  []net.Conn
	failed chan error // the first failure before the end
	over   atomic.Bool
	loops  sync.WaitGroup
}

// opening is how many sessions are opened at the same time.
const opening = 16

// openGroup opens n sessions.
func (d Dialer) openGroup(ctx context.Context, n int, op byte) (*Group, error) {
	g := &Group{conns: make([]net.Conn, n), failed: make(chan error, 1)}
	errs := make([]error, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	for range min(n, opening) {
		workers.Go(func() {
			for i := range next {
				g.conns[i], errs[i] = d.open(ctx, op)
			}
		})
	}
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, errors.Join(fmt.Errorf("session %d of %d: %w", i+1, n, err), g.Close())
		}
	}
	return g, nil
}

// start runs loop for every session. A loop that ends with an error before Close
// fails the group.
func (g *Group) start(loop func(i int, c net.Conn) error) {
	for i, c := range g.conns {
		g.loops.Go(func() {
			if err := loop(i, c); err != nil && !g.over.Load() {
				select {
				case g.failed <- fmt.Errorf("session %d of %d: %w", i+1, len(g.conns), err):
				default: // one is enough
				}
			}
		})
	}
}

// all waits until every session has signalled.
func (g *Group) all(ctx context.Context, signals <-chan struct{}) error {
	for range g.conns {
		select {
		case <-signals:
		case err := <-g.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close ends the sessions and waits for their goroutines.
func (g *Group) Close() error {
	g.over.Store(true)
	for _, c := range g.conns {
		if c != nil {
			_ = c.Close() // the tunnel may have ended it
		}
	}
	g.loops.Wait()
	return nil
}

// Hold opens n sessions that stay idle after a first byte there and back.
func (d Dialer) Hold(ctx context.Context, n int) (*Group, error) {
	return d.openGroup(ctx, n, service.Echo)
}

// Stall opens n sessions to an endless source and never reads. Their connections
// are narrow, so that what piles up does so in the tunnel.
func (d Dialer) Stall(ctx context.Context, n int) (*Group, error) {
	return d.openGroup(context.WithValue(ctx, narrowKey{}, true), n, service.Narrow)
}
