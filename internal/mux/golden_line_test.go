package mux_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// goldenLine is one end of a way in memory that delays messages, puts several
// into one, and cuts them into pieces as a network does. It holds the sender's
// buffers until they are delivered, and what it delivers is overwritten as soon as
// the receiver lets go of it: a buffer that is freed too early shows as wrong
// bytes.
type goldenLine struct {
	g    *golden
	out  chan<- parcel
	in   <-chan parcel
	over chan struct{} // closed by either end
	once *sync.Once

	// of the direction toward this end
	rng     *rand.Rand
	latency time.Duration
	burst   time.Duration // messages arrive at multiples of it; 0: when they come
	merge   int           // messages in one, at most
	piece   int           // bytes of a buffer, at most
	due     time.Time     // of the last parcel taken
	held    *parcel       // taken, not due yet

	// of the direction from this end; guarded by the one caller of Send
	sendRng *rand.Rand
	jitter  time.Duration
}

// parcel is a message on its way.
type parcel struct {
	data mem.BufferSlice
	due  time.Time
}

// lineQueue is how many messages are on their way at most.
const lineQueue = 8

// newLines returns both ends of a way that the run's seed describes.
func newLines(g *golden) [2]*goldenLine {
	ways := [2]chan parcel{make(chan parcel, lineQueue), make(chan parcel, lineQueue)}
	over, once := make(chan struct{}), new(sync.Once)
	var lines [2]*goldenLine
	for i := range lines {
		rng := rand.New(rand.NewPCG(g.seed, uint64(1000+i)))
		l := &goldenLine{
			g: g, out: ways[i], in: ways[1-i], over: over, once: once,
			rng: rng, merge: 1 + rng.IntN(4), piece: 256 << rng.IntN(9),
			sendRng: rand.New(rand.NewPCG(g.seed, uint64(2000+i))),
		}
		if g.bubble {
			l.latency = time.Duration(rng.IntN(60)) * time.Millisecond
			l.burst = time.Duration(max(rng.IntN(80)-40, 0)) * time.Millisecond
			l.jitter = time.Duration(rng.IntN(20)) * time.Millisecond
		}
		lines[i] = l
	}
	return lines
}

// Send implements mux.Transport.
func (l *goldenLine) Send(b *wire.Batch) error {
	l.g.sample()
	data, err := wire.Codec{}.Marshal(b)
	if err != nil {
		return err
	}
	p := parcel{data: data, due: time.Now()}
	if l.jitter > 0 {
		p.due = p.due.Add(time.Duration(l.sendRng.Int64N(int64(l.jitter))))
	}
	select {
	case l.out <- p:
		return nil
	case <-l.over:
		data.Free()
		return io.EOF
	}
}

// Recv implements mux.Transport.
func (l *goldenLine) Recv(r *wire.Received) error {
	first, err := l.next()
	if err != nil {
		return err
	}
	message := l.deliver(nil, first)
	for n := 1; n < l.merge && message.Len() < 256<<10 && l.arrived(); n++ {
		message = l.deliver(message, *l.held)
		l.held = nil
	}
	err = wire.Codec{}.Unmarshal(message, r)
	message.Free()
	for i := range r.Frames {
		l.g.frames[r.Frames[i].Kind].Add(1)
	}
	l.g.sample()
	return err
}

// next waits for the next parcel. Those that are on their way when the line ends
// are lost, as with a connection.
func (l *goldenLine) next() (parcel, error) {
	if l.held == nil {
		select {
		case p := <-l.in:
			l.hold(p)
		case <-l.over:
			return parcel{}, l.lost()
		}
	}
	if wait := time.Until(l.held.due); wait > 0 {
		arrival := time.NewTimer(wait)
		defer arrival.Stop()
		select {
		case <-arrival.C:
		case <-l.over:
			return parcel{}, l.lost()
		}
	}
	p := *l.held
	l.held = nil
	return p, nil
}

// arrived tells whether one more parcel is there, and holds it.
func (l *goldenLine) arrived() bool {
	if l.held == nil {
		select {
		case p := <-l.in:
			l.hold(p)
		default:
			return false
		}
	}
	return time.Until(l.held.due) <= 0
}

// hold keeps a parcel until it is due: in order, and in bursts if the line has
// them.
func (l *goldenLine) hold(p parcel) {
	p.due = p.due.Add(l.latency)
	if l.burst > 0 {
		p.due = p.due.Truncate(l.burst).Add(l.burst)
	}
	if p.due.Before(l.due) {
		p.due = l.due
	}
	l.due, l.held = p.due, &p
}

// deliver appends a copy of a parcel to a message, in pieces, and frees it.
func (l *goldenLine) deliver(message mem.BufferSlice, p parcel) mem.BufferSlice {
	from := p.data.Reader()
	for from.Remaining() > 0 {
		buf := make([]byte, min(1+l.rng.IntN(l.piece), from.Remaining()))
		_, _ = io.ReadFull(from, buf) // there are as many
		message = append(message, mem.NewBuffer(&buf, overwriting{}))
	}
	_ = from.Close() // never fails
	p.data.Free()
	return message
}

func (l *goldenLine) lost() error {
	if l.held != nil {
		l.held.data.Free()
		l.held = nil
	}
	return errLineEnded
}

var errLineEnded = errors.New("the line has ended")

// Close implements mux.Transport.
func (l *goldenLine) Close(bool) { l.once.Do(func() { close(l.over) }) }

// overwriting is a pool that spoils what comes back and lends nothing twice.
type overwriting struct{}

// Get implements mem.BufferPool.
func (overwriting) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (overwriting) Put(b *[]byte) {
	for i := range *b {
		(*b)[i] = 0xEE
	}
}

var _ mux.Transport = (*goldenLine)(nil)
