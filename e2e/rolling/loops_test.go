package rolling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// request is one run of kubectl.
type request struct {
	began, ended time.Time
	// retries are those that kubectl says it has made by itself.
	retries int
	err     error
	// held is for how long the machine stood still meanwhile, where that may be why it failed.
	held time.Duration
}

// excuse is how long the machine has to stand still for a failure to say nothing of the
// hub: what is left of the ten seconds that a client waits for a handshake, after a hub has
// drained and started on a busy machine, and of the time in which it drains.
const excuse = 2 * time.Second

// loops are people who run kubectl over and over.
type loops struct {
	kubectl testbed.Kubectl

	mu       sync.Mutex
	requests [][]request // of each loop
	watches  int         // that have ended
	stop     chan struct{}
	running  sync.WaitGroup
}

// startLoops runs n loops that read, and some that watch.
func startLoops(ctx context.Context, kubectl testbed.Kubectl, n, watching int) *loops {
	l := &loops{kubectl: kubectl, requests: make([][]request, n), stop: make(chan struct{})}
	for i := range n {
		l.running.Go(func() { l.read(ctx, i) })
	}
	for range watching {
		l.running.Go(func() { l.watch(ctx) })
	}
	return l
}

func (l *loops) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// read runs kubectl until it is told to stop; the last run finishes.
func (l *loops) read(ctx context.Context, i int) {
	for !l.stopped() {
		r := request{began: time.Now()}
		// With this verbosity client-go says when it tries again.
		cmd := l.kubectl.Command(ctx, "get", "configmap", "first", "--output=name", "--v=4")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := run(cmd)
		r.ended = time.Now()
		r.retries = strings.Count(stderr.String(), "Got a Retry-After")
		if got := strings.TrimSpace(stdout.String()); err != nil || got != "configmap/first" {
			r.err = fmt.Errorf("%w: %q: %s", err, got, strings.TrimSpace(stderr.String()))
			if !strings.Contains(r.err.Error(), "connection refused") { // that no standing still explains
				r.held = testbed.HeldUp(r.began)
			}
		}
		l.mu.Lock()
		l.requests[i] = append(l.requests[i], r)
		l.mu.Unlock()
	}
}

// niceness is that of the loops: on machines of their own they would not take the
// hub's processor.
const niceness = 10

func run(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	return errors.Join(unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, niceness), cmd.Wait())
}

// watch keeps a watch open, so that a hub has something that it cannot wait for.
func (l *loops) watch(ctx context.Context) {
	for !l.stopped() {
		watching, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go cancelOn(l.stop, ended, cancel)
		// How it ends is the watcher's affair: a watch is never for ever.
		_ = l.kubectl.Command(watching, "get", "configmaps", "--watch", "--output=name").Run()
		close(ended)
		cancel()
		l.mu.Lock()
		l.watches++
		l.mu.Unlock()
	}
}

// cancelOn ends what is running when it is told to stop, and returns when it has
// ended.
func cancelOn(stop, ended <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-stop:
		cancel()
	case <-ended:
	}
}

// after waits until every loop has finished a request that began after a time.
func (l *loops) after(ctx context.Context, since time.Time) error {
	return testbed.Poll(ctx, "a request of every loop", func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, requests := range l.requests {
			if !slices.ContainsFunc(requests, func(r request) bool { return r.began.After(since) }) {
				return fmt.Errorf("loop %d has none, of %d", i, len(requests))
			}
		}
		return nil
	})
}

// end lets every loop finish and returns what they saw.
func (l *loops) end() summary {
	close(l.stop)
	l.running.Wait()
	var s summary
	var successes []time.Time
	for _, requests := range l.requests {
		for _, r := range requests {
			s.requests++
			s.retries += r.retries
			s.longest = max(s.longest, r.ended.Sub(r.began))
			switch {
			case r.err == nil:
				successes = append(successes, r.ended)
			case r.held < excuse:
				s.failures = append(s.failures, r.err)
			default:
				s.excused++
			}
		}
	}
	s.watches = l.watches
	slices.SortFunc(successes, time.Time.Compare)
	for i := 1; i < len(successes); i++ {
		s.gap = max(s.gap, successes[i].Sub(successes[i-1]))
	}
	return s
}

// summary is what loops saw.
type summary struct {
	requests, retries, watches int
	failures                   []error
	excused                    int // failures while the machine stood still
	// longest is the slowest request, and gap the longest time in which none of all
	// loops came back with success.
	longest, gap time.Duration
}

func (s summary) String() string {
	return fmt.Sprintf("%d requests, %d retried by kubectl, %d failed, %d more while the machine stood still; slowest %v, longest time without a success %v, %d watches",
		s.requests, s.retries, len(s.failures), s.excused, s.longest.Round(time.Millisecond), s.gap.Round(time.Millisecond), s.watches)
}
