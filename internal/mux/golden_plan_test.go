package mux_test

import (
	"math/rand/v2"
	"time"
)

// goldenKind says how the open of a session goes.
type goldenKind int

const (
	openedKind   goldenKind = iota
	refusedKind             // the acceptor refuses
	canceledKind            // the opener gives up
	talkKind                // the ends talk in turns, and each waits for the other
)

// goldenAct is what an end does to its session at some point.
type goldenAct int

const (
	goOn goldenAct = iota
	closeRead
	closeWrite
	closeBoth
	reset
	fail
)

// String is for the dump of a run that hangs.
func (a goldenAct) String() string {
	return [...]string{"go on", "close read", "close write", "close", "reset", "fail"}[a]
}

// readerHow is the way a reader takes bytes.
type readerHow int

const (
	byWriteTo readerHow = iota
	byRead
	byBoth // Read first, then WriteTo
)

// goldenPlan is one session, decided before anything runs.
type goldenPlan struct {
	byDialler bool
	kind      goldenKind
	start     time.Duration // after the run's begin
	decide    time.Duration // how long the acceptor takes
	early     bool          // the opener begins before it knows the decision
	first     int           // bytes that travel with the open
	ends      [2]endPlan    // the opener's and the acceptor's
}

// endPlan is what one end of a session does.
type endPlan struct {
	// The writer sends size bytes in calls of at most piece, and then acts.
	size      int
	piece     int
	readFrom  int // percent of calls that are ReadFrom
	writeRest int // permille of calls before which it rests
	last      goldenAct
	// The reader acts once it has read at bytes, if ever. It stops there before
	// that until it is released, or, when it outlives, until the links have ended.
	how      readerHow
	pumps    bool // WriteTo is Pump
	buffer   int  // bytes of a Read, at most
	readRest int  // permille of reads before which it rests
	at       int  // -1: never
	stops    bool
	outlives bool
	then     goldenAct
}

// talkTurns is how often each end of a talk speaks.
const talkTurns = 50

// newPlan makes the plan of session i. Sessions outlive the links of runs with an
// odd seed; the others are drained.
func newPlan(seed, i uint64, window int) goldenPlan {
	rng := rand.New(rand.NewPCG(seed, i))
	p := goldenPlan{
		byDialler: rng.IntN(2) == 0,
		start:     time.Duration(rng.IntN(6_000)) * time.Millisecond,
		decide:    time.Duration(rng.IntN(200)) * time.Millisecond,
		ends:      [2]endPlan{newEndPlan(rng, seed%2 == 1), newEndPlan(rng, seed%2 == 1)},
	}
	for i := range p.ends {
		p.ends[i].buffer = max(p.ends[i].buffer, p.ends[1-i].size/1000) // slow, but not for hours
	}
	switch n := rng.IntN(20); {
	case n == 0:
		p.kind = refusedKind
	case n == 1:
		p.kind = canceledKind
	case n == 2:
		p.kind = talkKind
		size := talkTurns * (1 + rng.IntN(3*window/talkTurns))
		for i := range p.ends {
			p.ends[i] = endPlan{size: size, piece: size / talkTurns, last: closeWrite, at: -1}
		}
	case n < 10 && !p.ends[0].stops:
		p.early = true
		// Close and Reset before the decision give the open up, which is a case of
		// its own.
		p.ends[0].last = closeWrite
		if p.ends[0].then != closeRead {
			p.ends[0].then = goOn
		}
	}
	if p.kind != talkKind && rng.IntN(2) == 0 {
		p.first = min(p.ends[0].size, rng.IntN(4097), window)
	}
	return p
}

func newEndPlan(rng *rand.Rand, outlive bool) endPlan {
	e := endPlan{
		size:     randomSize(rng),
		piece:    1 << rng.IntN(19),
		readFrom: []int{0, 50, 100}[rng.IntN(3)],
		last:     closeWrite,
		how:      readerHow(rng.IntN(3)),
		buffer:   1 + rng.IntN(1<<(6+rng.IntN(11))),
		at:       -1,
		pumps:    rng.IntN(2) == 0,
	}
	e.piece = max(e.piece, e.size/500)
	if rng.IntN(3) == 0 {
		e.writeRest = 1 + rng.IntN(300)
	}
	if rng.IntN(3) == 0 {
		e.readRest = 1 + rng.IntN(100)
		e.buffer = min(e.buffer, 1024)
	}
	switch n := rng.IntN(10); {
	case n < 2:
		e.last = closeBoth
	case n < 3:
		e.last = reset
	case n < 5:
		e.last = fail
	}
	switch n := rng.IntN(20); {
	case n < 4: // stops
		e.at, e.stops = randomSize(rng), true
		if rng.IntN(3) == 0 {
			e.at = 0
		}
		e.then = []goldenAct{goOn, goOn, closeRead, closeBoth, reset, fail}[rng.IntN(6)]
		e.outlives = outlive && rng.IntN(6) == 0
	case n < 8: // acts in the middle
		e.at = randomSize(rng)
		e.then = []goldenAct{closeRead, closeBoth, reset, fail}[rng.IntN(4)]
	}
	return e
}

// randomSize gives nothing, a few bytes and a few MB each often enough.
func randomSize(rng *rand.Rand) int {
	switch n := rng.IntN(20); {
	case n < 2:
		return 0
	case n < 4:
		return rng.IntN(10)
	case n < 9:
		return rng.IntN(8 << 10)
	case n < 15:
		return rng.IntN(200 << 10)
	case n < 19:
		return rng.IntN(1 << 20)
	default:
		return rng.IntN(3 << 20)
	}
}

// goldenPeriod is a prime, so that no loss or doubling of frames, buffers or pages
// goes unseen.
const goldenPeriod = 65521

// newGoldenBytes returns what all halves are cut from: a period, and again for as
// long as the largest call.
func newGoldenBytes() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, goldenPeriod+4<<20)
	for i := range goldenPeriod {
		b[i] = byte(rng.Uint32())
	}
	for n := goldenPeriod; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
	return b
}
