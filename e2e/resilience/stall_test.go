package resilience

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// stallBytes are sent in all to a client that does not read. It is endless for
	// the first minute: far more than all buffers on the way hold.
	stallBytes = 64 << 20
	// stallMeasured is how long the other sessions are measured meanwhile, after
	// stallBaseline without a stall.
	stallMeasured = 10 * time.Second
	stallBaseline = 3 * time.Second
	// stallEnds is when the client reads again.
	stallEnds = 60 * time.Second
	// stallGrowth is what a hub or an agent may grow by: one window of the largest
	// size, 16 MiB, and half of that again, since Go collects garbage when it has
	// grown in proportion to what lives. Socket buffers are not in a process's
	// resident memory. It is less than half of what the source would send.
	stallGrowth = 24 << 20
)

// stall is one session whose client does not read.
type stall struct {
	name string
	// open starts the session. It returns where the client will read, at what
	// offset of the pattern, and how much the source has got rid of.
	open func(ctx context.Context) (client io.ReadCloser, offset int64, taken *atomic.Int64, err error)
	// total is what the source sends.
	total int64
	// request is one request of somebody else on the same link.
	request func(context.Context) error
	// watched are the processes whose memory must not grow.
	watched map[string]*testbed.Process

	measured      chan struct{} // closed when the first ten seconds are over
	ended         chan struct{}
	err           error
	before, while latencies
	memory        []growth
	stuckAt       int64 // bytes the source had sent after ten seconds
	stuckAfter    int64 // and after a minute
	read          time.Duration
}

// growth is the memory of one process, in bytes.
type growth struct {
	name                        string
	before, highest, afterStall int64
}

// stalls are all variants, at the same time.
type stalls struct {
	all []*stall
	// control has a hub and an agent like the others, and no session that stalls: by how
	// much its requests get slower meanwhile is the machine's doing.
	control *stall
	// heap is the live heap of the test's process, which embeds a hub: before,
	// and after ten seconds.
	heapBefore, heapWhile uint64
}

// startStalls begins all variants and returns when the other sessions have been
// measured for ten seconds.
func startStalls(t *testing.T, l *lab) *stalls {
	t.Helper()
	s := &stalls{all: []*stall{
		l.rawStall(t),
		l.webStall(t, "N1: an HTTP/1.1 answer that its client never reads", "stall-http1", false, 0),
		l.webStall(t, "N1: an HTTP/2 answer that its client never reads, beside others on its connection", "stall-http2", true, 0),
		l.webStall(t, "N1: an answer whose client reads fast, so that windows have grown, and then stops", "stall-grown", false, stallBytes),
		l.uploadStall(t),
	}, control: l.control(t)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	s.heapBefore = liveHeap()
	over := make(chan time.Time)
	running.Go(func() { s.control.measureOnly(ctx, over) })
	for _, one := range s.all {
		one.measured, one.ended = make(chan struct{}), make(chan struct{})
		running.Go(func() { one.run(ctx) })
	}
	for _, one := range s.all {
		select {
		case <-one.measured:
		case <-one.ended: // with an error
		}
	}
	close(over)
	<-s.control.ended
	s.heapWhile = liveHeap()
	return s
}

// liveHeap is what the test's process holds, in bytes.
func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// rawStall is a session of an embedded hub.
func (l *lab) rawStall(t *testing.T) *stall {
	r := l.startRaw(t, "stall-raw")
	echoes := l.listen(t, testbed.InsideAddress)
	go echo(echoes)
	return &stall{
		name:    "N1: a raw session that its client never reads",
		total:   stallBytes,
		request: echoRequest(r, echoes.Addr().String()),
		watched: map[string]*testbed.Process{"agent": r.agent},
		open: func(ctx context.Context) (io.ReadCloser, int64, *atomic.Int64, error) {
			caller, target, err := r.pipe(ctx)
			if err != nil {
				return nil, 0, nil, err
			}
			taken := new(atomic.Int64)
			go func() {
				// What is lost here is missed by the client.
				_ = l.pattern.write(target, stallBytes, taken)
				_ = target.Close()
			}()
			context.AfterFunc(ctx, func() { _ = target.Close() }) // may be closed
			return caller, 0, taken, nil
		},
	}
}

// webStall is an answer of a service, of which the client reads the first bytes
// only.
func (l *lab) webStall(t *testing.T, name, folder string, http2 bool, first int64) *stall {
	h := l.startHub(t, folder)
	agent := h.startAgent(t, "agent")
	c := h.caller(t, http2)
	h.awaitServing(t, c)
	taken := new(atomic.Int64)
	path := l.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = l.pattern.write(w, n, taken) // what is lost is missed by the client
	}))
	total := first + stallBytes
	return &stall{
		name:    name,
		total:   total,
		request: versionRequest(c),
		watched: map[string]*testbed.Process{"hub": h.process, "agent": agent},
		open: func(ctx context.Context) (io.ReadCloser, int64, *atomic.Int64, error) {
			before := c.connections.Load()
			resp, err := c.open(ctx, http.MethodGet, fmt.Sprintf("%s/pattern?bytes=%d", path, total), nil)
			if err != nil {
				return nil, 0, nil, err
			}
			if resp.StatusCode != http.StatusOK {
				return nil, 0, nil, errors.Join(fmt.Errorf("stalled answer: %s", resp.Status), resp.Body.Close())
			}
			if http2 && c.connections.Load() != before {
				return nil, 0, nil, errors.Join(errors.New("the stalled answer has a connection of its own"), resp.Body.Close())
			}
			if err := l.pattern.verify(resp.Body, 0, first); err != nil {
				return nil, 0, nil, errors.Join(err, resp.Body.Close())
			}
			return resp.Body, first, taken, nil
		},
	}
}

// uploadStall is the other direction: a body that its service does not read.
func (l *lab) uploadStall(t *testing.T) *stall {
	h := l.startHub(t, "stall-upload")
	agent := h.startAgent(t, "agent")
	c := h.caller(t, true)
	h.awaitServing(t, c)
	u := &upload{body: make(chan io.Reader, 1), done: make(chan struct{})}
	path := l.serve(t, u)
	return &stall{
		name:    "N1: an upload that its service never reads, beside others on its connection",
		total:   stallBytes,
		request: versionRequest(c),
		watched: map[string]*testbed.Process{"hub": h.process, "agent": agent},
		open: func(ctx context.Context) (io.ReadCloser, int64, *atomic.Int64, error) {
			body, source := io.Pipe()
			taken := new(atomic.Int64)
			go func() {
				// What is lost here is missed by the service.
				source.CloseWithError(l.pattern.write(source, stallBytes, taken))
			}()
			go func() {
				_, err := c.do(ctx, http.MethodPut, path+"/upload", body)
				body.CloseWithError(err)
			}()
			select {
			case u.Reader = <-u.body:
				return u, 0, taken, nil
			case <-ctx.Done():
				return nil, 0, nil, ctx.Err()
			}
		},
	}
}

// upload is a service that leaves a request's body to the test, until Close.
type upload struct {
	io.Reader
	body chan io.Reader
	done chan struct{}
}

// ServeHTTP implements http.Handler.
func (u *upload) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	u.body <- r.Body
	select {
	case <-u.done:
	case <-r.Context().Done():
	}
}

// Close lets the service answer.
func (u *upload) Close() error {
	close(u.done)
	return nil
}

// run goes through all of it once. It ends after a minute or with ctx.
func (s *stall) run(ctx context.Context) {
	defer close(s.ended)
	s.err = s.stallOnce(ctx)
}

func (s *stall) stallOnce(ctx context.Context) (err error) {
	if s.before, err = measure(ctx, stallBaseline, s.request); err != nil {
		return fmt.Errorf("before the stall: %w", err)
	}
	for name, p := range s.watched {
		m, err := p.Memory()
		if err != nil {
			return err
		}
		s.memory = append(s.memory, growth{name: name, before: m.Resident})
	}
	client, offset, taken, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	begun := time.Now()
	sampled := make(chan error, 1)
	sampling, stop := context.WithCancel(ctx)
	go s.sample(sampling, sampled)
	s.while, err = measure(ctx, stallMeasured, s.request)
	stop()
	if err = errors.Join(err, <-sampled); err != nil {
		return fmt.Errorf("during the stall: %w", err)
	}
	s.stuckAt = taken.Load()
	close(s.measured)

	// The minute is what is tested.
	end := time.NewTimer(time.Until(begun.Add(stallEnds)))
	defer end.Stop()
	select {
	case <-end.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.stuckAfter = taken.Load()
	for i := range s.memory {
		m, err := s.watched[s.memory[i].name].Memory()
		if err != nil {
			return err
		}
		s.memory[i].afterStall = m.Resident
	}
	started := time.Now()
	if err := s.readRest(client, offset); err != nil {
		return fmt.Errorf("after %v: %w", stallEnds, err)
	}
	s.read = time.Since(started)
	return nil
}

// sample keeps the highest memory of each process until ctx ends, and sends one
// result.
func (s *stall) sample(ctx context.Context, result chan<- error) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		for i := range s.memory {
			m, err := s.watched[s.memory[i].name].Memory()
			if err != nil {
				result <- err
				return
			}
			s.memory[i].highest = max(s.memory[i].highest, m.Resident)
		}
		select {
		case <-ctx.Done():
			result <- nil
			return
		case <-ticker.C:
		}
	}
}

// readRest wants every byte and a clean end.
func (s *stall) readRest(client io.Reader, offset int64) error {
	p := newPattern()
	if err := p.verify(client, offset, s.total-offset); err != nil {
		return err
	}
	return wantEnd(client, s.total)
}

// check waits for the end of the minute and judges.
func (s *stalls) check(t *testing.T) {
	t.Helper()
	must(t, s.control.err)
	medians, p99s := slower(s.control.before.median, s.control.while.median), slower(s.control.before.p99, s.control.while.p99)
	t.Logf("without a stall, before: %v", s.control.before)
	t.Logf("without a stall, during: %v", s.control.while)
	for _, one := range s.all {
		t.Run(one.name, func(t *testing.T) {
			<-one.ended
			must(t, one.err)
			t.Logf("others before: %v", one.before)
			t.Logf("others during: %v", one.while)
			// A session that waits for the stalled one waits for a minute; a tunnel
			// whose buffers are full of it waits likewise. The allowance is for a
			// busy machine, which may have become as much slower as the control tells.
			if limit := time.Duration(3*medians*float64(one.before.median)) + 5*time.Millisecond; one.while.median > limit {
				t.Errorf("the median of the other sessions rose from %v to %v, limit %v", one.before.median, one.while.median, limit)
			}
			if limit := time.Duration(5*p99s*float64(one.before.p99)) + 100*time.Millisecond; one.while.p99 > limit {
				t.Errorf("the 99th percentile of the other sessions rose from %v to %v, limit %v", one.before.p99, one.while.p99, limit)
			}
			for _, m := range one.memory {
				t.Logf("%s: %d KiB before, at most %d KiB in %v, %d KiB after %v",
					m.name, m.before>>10, m.highest>>10, stallMeasured, m.afterStall>>10, stallEnds)
				if grown := max(m.highest, m.afterStall) - m.before; grown > stallGrowth {
					t.Errorf("%s grew by %d KiB", m.name, grown>>10)
				}
			}
			t.Logf("the source had sent %d KiB after %v and %d KiB after %v; the rest was read in %v",
				one.stuckAt>>10, stallMeasured, one.stuckAfter>>10, stallEnds, one.read.Round(time.Millisecond))
			if one.stuckAfter != one.stuckAt || one.stuckAfter >= one.total {
				t.Errorf("the source was not held up: %d bytes, then %d, of %d", one.stuckAt, one.stuckAfter, one.total)
			}
		})
	}
	t.Run("N1: a hub inside of another program holds no more than windows for sessions that nobody reads", func(t *testing.T) {
		t.Logf("live heap with all of the above: %d KiB before, %d KiB after %v", s.heapBefore>>10, s.heapWhile>>10, stallMeasured)
		// The embedded hub's window of 256 KiB, and 4 MiB that Go's HTTP/2 client
		// receives before anybody reads.
		if grown := int64(s.heapWhile) - int64(s.heapBefore); grown > 8<<20 {
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
	})
}
