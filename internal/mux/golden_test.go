package mux_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestGolden plays random sessions between two links and judges every byte, every
// end and every reason. What is played follows from the seed alone. In a bubble
// (see testing/synctest) the way is long, delays and pauses cost nothing, and
// credit of idle sessions is taken back; outside of it threads really compete.
func TestGolden(t *testing.T) {
	for _, run := range []struct {
		seed   uint64
		bubble bool
	}{
		{1, true},
		{2, true},
		{3, false},
		{rand.Uint64(), true},
		{rand.Uint64(), false},
	} {
		where := "on a long way"
		if !run.bubble {
			where = "in threads that compete"
		}
		name := fmt.Sprintf("N1,N2: random sessions %s: every byte in order, once, before the end, within the budget, seed %d", where, run.seed)
		t.Run(name, func(t *testing.T) {
			g := &golden{seed: run.seed, bubble: run.bubble}
			late := time.AfterFunc(realTime, func() { panic(g.dump("the test makes no progress")) })
			defer late.Stop()
			if run.bubble {
				synctest.Test(t, g.play)
			} else {
				g.play(t)
			}
		})
	}
}

const (
	// realTime ends a run that uses the machine and gets nowhere.
	realTime = 45 * time.Second
	// bubbleTime and threadTime are how long a phase may take. That of a bubble
	// costs nothing.
	bubbleTime = 20 * time.Minute
	threadTime = 20 * time.Second
	// goldenSessions are played in all, goldenLive at once beside those that stand.
	goldenSessions = 200
	goldenLive     = 80
)

// golden is one run.
type golden struct {
	seed   uint64
	bubble bool

	t        *testing.T
	window   int // first window
	least    int // window of every session
	bytes    []byte
	links    [2]*mux.Link
	budgets  [2]*mux.Budget
	sessions []*goldenSession

	slots   chan struct{}
	live    sync.WaitGroup // halves whose reader is not stopped
	ends    sync.WaitGroup // sessions that end before the links do
	all     sync.WaitGroup // all sessions
	release chan struct{}  // closed when stopped readers go on
	over    chan struct{}  // closed when the links have ended

	started, ended atomic.Int64 // sessions that may use the budget
	highest        [2]atomic.Int64
	exhausted      atomic.Int64 // opens refused for want of budget
	frames         [16]atomic.Int64
	aborted        atomic.Bool // the run failed as a whole: sessions are not judged
	broken         atomic.Bool // the budget's bound was reported
}

// play runs everything once.
func (g *golden) play(t *testing.T) {
	g.t = t
	began := time.Now()
	g.setUp()
	stop := g.startLinks()
	for _, s := range g.sessions {
		g.all.Add(1)
		if !s.outlives() {
			g.ends.Add(1)
		}
		for half := range 2 {
			if s.isLive(half) {
				g.live.Add(1)
			}
		}
		go s.run()
	}
	g.await("sessions with live readers to end", &g.live)
	standing := fmt.Sprintf("%d and %d bytes held by %d sessions that stand",
		g.budgets[0].Used(), g.budgets[1].Used(), g.started.Load()-g.ended.Load())
	open(g.release)
	g.await("stopped sessions to end", &g.ends)
	g.awaitTables()
	stop(g.outliving() == 0)
	open(g.over)
	g.await("sessions to end with their links", &g.all)

	for i, l := range g.links {
		if n := l.Stats().Sessions; n != 0 {
			t.Errorf("link %d still has %d sessions", i, n)
		}
		if queued := g.budgets[i].Queued(); queued != 0 {
			t.Errorf("end %d: %d bytes count as queued when all is over", i, queued)
		}
		if used := g.budgets[i].Used(); used != 0 {
			t.Errorf("%d bytes of budget %d are still committed", used, i)
		}
	}
	g.log(standing, time.Since(began))
}

// setUp chooses bounds and plans.
func (g *golden) setUp() {
	rng := rand.New(rand.NewPCG(g.seed, 0))
	g.window, g.least = 16<<10<<rng.IntN(4), 4<<10<<rng.IntN(2)
	for i := range g.budgets {
		g.budgets[i] = mux.NewBudget(int64(2+rng.IntN(3)) << 20)
	}
	g.slots = make(chan struct{}, goldenLive)
	g.bytes = newGoldenBytes()
	g.release, g.over = make(chan struct{}), make(chan struct{})
	for i := range goldenSessions {
		s := &goldenSession{g: g, index: i, plan: newPlan(g.seed, uint64(i), g.window), accepted: make(chan error, 1)}
		s.newEnds()
		g.sessions = append(g.sessions, s)
	}
}

// startLinks returns how to end them: cut, or drained when no session is left.
func (g *golden) startLinks() (stop func(drain bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	transports := newLines(g)
	var running sync.WaitGroup
	for i := range g.links {
		g.links[i] = mux.New(transports[i], mux.Config{
			Dialler: i == 0, Hop: []wire.Hop{wire.HopAgent, wire.HopHub}[i], Handler: g.handle, Budget: g.budgets[i],
			InitialWindow: g.window, MinWindow: g.least, MaxWindow: int(g.budgets[i].Limit() / 4),
			SendBuffer: 2 * g.window, MaxData: 16 << 10 << (2 * i),
		})
	}
	for _, l := range g.links {
		running.Go(func() {
			err := l.Run(ctx)
			var e *mux.Error
			if err != nil && (!errors.As(err, &e) || e.Code != wire.CodeLinkLost && e.Code != wire.CodeDraining) {
				g.t.Errorf("seed %d: a link ended: %v", g.seed, err)
			}
		})
	}
	return func(drain bool) {
		if drain && !g.aborted.Load() {
			if err := g.links[0].Drain(ctx, wire.CodeDraining, "the run is over"); err != nil {
				g.t.Errorf("seed %d: drain: %v", g.seed, err)
			}
		}
		cancel()
		running.Wait()
	}
}

// handle decides about a session as its plan says.
func (g *golden) handle(ctx context.Context, in *mux.Incoming) {
	i, err := strconv.Atoi(in.RequestID())
	if err != nil || i >= len(g.sessions) {
		g.t.Errorf("seed %d: a session with the id %q", g.seed, in.RequestID())
		return
	}
	s := g.sessions[i]
	g.pause(s.plan.decide)
	switch s.plan.kind {
	case refusedKind:
		in.Refuse(wire.CodeNotFound, wire.HopTarget, s.reason(1))
	case canceledKind:
		<-ctx.Done()
	default:
		var err error
		if s.ends[1].conn, err = in.Accept(); err == nil {
			s.ends[1].start()
		}
		s.accepted <- err
	}
}

// pause lets d of the bubble's time pass, or other threads run.
func (g *golden) pause(d time.Duration) {
	if !g.bubble {
		runtime.Gosched()
		return
	}
	time.Sleep(d) // the pace of a reader or writer: nobody relies on it
}

// await waits for a phase. When it takes too long the run fails and is ended.
func (g *golden) await(what string, group *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	late := time.NewTimer(g.phaseTime())
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		g.abort("waiting for " + what)
		<-done
	}
}

func (g *golden) phaseTime() time.Duration {
	if g.bubble {
		return bubbleTime
	}
	return threadTime
}

// abort reports everything, and ends the links so that everybody goes on.
func (g *golden) abort(what string) {
	if g.aborted.Swap(true) {
		return
	}
	g.t.Error(g.dump(what))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, l := range g.links {
		_ = l.Drain(ended, wire.CodeInternal, "the test failed") // says that sessions were left
	}
	open(g.release)
	open(g.over)
}

// open lets everybody pass who waits for c, once and for all.
func open(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// awaitTables waits until no session is left but those that outlive the links:
// last frames are still under way when both applications are done.
func (g *golden) awaitTables() {
	late := time.NewTimer(g.phaseTime())
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for max(g.links[0].Stats().Sessions, g.links[1].Stats().Sessions) > g.outliving() {
		select {
		case <-tick.C:
		case <-late.C:
			g.abort("waiting for the tables to be empty")
			return
		}
	}
}

// outliving counts the sessions that have not ended.
func (g *golden) outliving() int {
	n := 0
	for _, s := range g.sessions {
		if !s.done.Load() {
			n++
		}
	}
	return n
}

// errorf reports a failure of a run that did not fail as a whole.
func (g *golden) errorf(format string, args ...any) {
	if !g.aborted.Load() {
		g.t.Errorf("seed %d: "+format, append([]any{g.seed}, args...)...)
	}
}

// sample checks the bound of both budgets. It is called from everywhere.
func (g *golden) sample() {
	ended := g.ended.Load()
	for i, b := range g.budgets {
		used := b.Used()
		for {
			high := g.highest[i].Load()
			if used <= high || g.highest[i].CompareAndSwap(high, used) {
				break
			}
		}
		// Sessions may begin and end meanwhile; this counts them all.
		sessions := g.started.Load() - ended
		if bound := b.Limit() + sessions*int64(g.least); (used > bound || used < 0) && !g.broken.Swap(true) {
			g.t.Errorf("seed %d: link %d has committed %d bytes; the limit is %d, and %d sessions of at least %d make it %d",
				g.seed, i, used, b.Limit(), sessions, g.least, bound)
		}
	}
}

// dump tells what the run waits for. It may be called at any time.
func (g *golden) dump(what string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s\n", g.seed, what)
	for i, l := range g.links {
		if l != nil {
			fmt.Fprintf(&b, "link %d: %+v, %d of %d bytes committed\n", i, l.Stats(), g.budgets[i].Used(), g.budgets[i].Limit())
		}
	}
	for _, s := range g.sessions {
		if why := s.waits(); why != "" && s.begun.Load() && !s.done.Load() {
			fmt.Fprintf(&b, "%s\n  %s\n", s, why)
		}
	}
	b.WriteString("goroutines:\n")
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a Builder takes everything
	return b.String()
}

func (g *golden) log(standing string, took time.Duration) {
	var bytes int64
	for _, s := range g.sessions {
		bytes += s.ends[0].got.Load() + s.ends[1].got.Load()
	}
	var frames []string
	for k := range g.frames {
		if n := g.frames[k].Load(); n > 0 {
			frames = append(frames, fmt.Sprintf("%d %s", n, wire.Kind(k)))
		}
	}
	g.t.Logf("%d sessions, %d KiB read, %d opens refused for want of budget, %s; first window %d, at least %d; %v passed",
		len(g.sessions), bytes>>10, g.exhausted.Load(), standing, g.window, g.least, took.Round(time.Millisecond))
	g.t.Logf("budgets: at most %d of %d and %d of %d", g.highest[0].Load(), g.budgets[0].Limit(), g.highest[1].Load(), g.budgets[1].Limit())
	g.t.Logf("frames: %s", strings.Join(frames, ", "))
	for _, k := range []wire.Kind{wire.KindCredit, wire.KindFin, wire.KindStop, wire.KindReset, wire.KindRefused} {
		if g.frames[k].Load() == 0 {
			g.t.Errorf("seed %d: no %s was played", g.seed, k)
		}
	}
}
