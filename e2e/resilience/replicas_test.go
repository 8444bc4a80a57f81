package resilience

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func testReplicas(t *testing.T, l *lab) {
	h := l.startHub(t, "replicas")
	agents := []*testbed.Process{h.startAgent(t, "agent-1"), h.startAgent(t, "agent-2")}
	h.awaitAgents(t, 2)

	t.Run("K1,K2: with two agents no request fails while one after the other is killed", func(t *testing.T) {
		ctx, stop := context.WithCancel(within(t, 4*time.Minute))
		defer stop()
		loops := make([]*requestLoop, 4)
		var running sync.WaitGroup
		for i := range loops {
			loops[i] = &requestLoop{caller: h.caller(t, i%2 == 0)}
			running.Go(func() { loops[i].run(ctx) })
		}
		connected := 2
		for range 2 {
			for _, agent := range agents {
				// Under load for a moment, by one agent alone and by both.
				must(t, loops[0].served(ctx, 200))
				must(t, agent.Kill9())
				must(t, loops[0].served(ctx, 200))
				must(t, agent.Start(ctx))
				connected++
				h.awaitAgents(t, connected)
			}
		}
		must(t, loops[0].served(ctx, 200))
		stop()
		running.Wait()
		total, refused, broken := 0, 0, 0
		for _, loop := range loops {
			total, refused, broken = total+loop.count, refused+loop.refused, broken+loop.broken
			for _, err := range loop.failed {
				t.Errorf("request failed: %v", err)
			}
		}
		t.Logf("%d requests in four loops and four kills; made twice: %d after a 503, %d after an answer that broke off", total, refused, broken)
	})
}

// requestLoop makes one GET request after the other, each a second time where
// that is what a Kubernetes client does: after an answer with Retry-After, as
// client-go, and after one that broke off, since a GET harms nobody twice.
type requestLoop struct {
	caller *caller

	mu sync.Mutex
	count,
	refused, // answered with Retry-After at first
	broken int // broken off at first
	failed []error
}

func (r *requestLoop) run(ctx context.Context) {
	for ctx.Err() == nil {
		var refused, broken int
		a, err := r.caller.get(ctx, versionPath)
		seconds, parsed := strconv.Atoi(a.header.Get("Retry-After"))
		switch {
		case err != nil:
			broken = 1
			a, err = r.caller.get(ctx, versionPath)
		case a.status >= 500 && parsed == nil:
			refused = 1
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-ctx.Done():
			}
			a, err = r.caller.get(ctx, versionPath)
		}
		if ctx.Err() != nil {
			return // cut by the test's end
		}
		if err == nil {
			err = a.wantOK()
		}
		r.mu.Lock()
		r.count++
		r.refused += refused
		r.broken += broken
		if err != nil {
			r.failed = append(r.failed, err)
		}
		r.mu.Unlock()
	}
}

// served waits until n more requests were made.
func (r *requestLoop) served(ctx context.Context, n int) error {
	made := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.count
	}
	goal := made() + n
	return testbed.Poll(ctx, "requests", func(context.Context) error {
		if got := made(); got < goal {
			return fmt.Errorf("%d were made, want %d", got, goal)
		}
		return nil
	})
}
