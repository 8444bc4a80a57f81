// Package muxtest joins two links in memory, for the tests of the packages that
// stand on links.
package muxtest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// pipe is one end of an in-memory stream of messages with back pressure.
type pipe struct {
	out  chan<- []byte
	in   <-chan []byte
	over chan struct{} // closed by either end
	once *sync.Once
}

// Pipe returns the two ends of an in-memory stream. Closing one closes both.
func Pipe() (a, b mux.Transport) {
	ab, ba := make(chan []byte, 1), make(chan []byte, 1)
	over, once := make(chan struct{}), new(sync.Once)
	return &pipe{ab, ba, over, once}, &pipe{ba, ab, over, once}
}

func (p *pipe) Send(b *wire.Batch) error {
	out := b.Take()
	raw := out.Materialize()
	out.Free()
	select {
	case p.out <- raw:
		return nil
	case <-p.over:
		return io.EOF
	}
}

func (p *pipe) Recv(r *wire.Received) error {
	select {
	case raw := <-p.in:
		return r.Decode(mem.BufferSlice{mem.NewBuffer(&raw, mem.NopBufferPool{})})
	case <-p.over:
		select {
		case raw := <-p.in: // what was sent before the end
			return r.Decode(mem.BufferSlice{mem.NewBuffer(&raw, mem.NopBufferPool{})})
		default:
			return io.EOF
		}
	}
}

func (p *pipe) Close(bool) { p.once.Do(func() { close(p.over) }) }

// Pair is a dialling and an accepting link that talk to each other.
type Pair struct {
	Dialler, Acceptor *mux.Link
	// Accepted gives the sessions that either side accepted.
	Accepted chan *mux.Session
	// Stop ends both links and waits for them. The end of the test does it too.
	Stop func()
}

// New returns a running pair. The changes may alter the configurations first; by
// default each side accepts every session into Accepted.
func New(t testing.TB, change ...func(dialler, acceptor *mux.Config)) *Pair {
	t.Helper()
	p := &Pair{Accepted: make(chan *mux.Session, 1024)}
	accept := func(_ context.Context, in *mux.Incoming) {
		if s, err := in.Accept(); err == nil {
			p.Accepted <- s
		}
	}
	dc := mux.Config{Dialler: true, Hop: wire.HopAgent, Handler: accept}
	ac := mux.Config{Hop: wire.HopHub, Handler: accept}
	for _, f := range change {
		f(&dc, &ac)
	}
	a, b := Pipe()
	p.Dialler, p.Acceptor = mux.New(a, dc), mux.New(b, ac)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, l := range []*mux.Link{p.Dialler, p.Acceptor} {
		running.Go(func() {
			if err := l.Run(ctx); err != nil && ctx.Err() == nil && !isLost(err) {
				t.Errorf("link ended: %v", err)
			}
		})
	}
	p.Stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(p.Stop)
	return p
}

func isLost(err error) bool {
	var e *mux.Error
	return errors.As(err, &e) && (e.Code == wire.CodeLinkLost || e.Code == wire.CodeDraining || e.Code == wire.CodeReplaced)
}

// Open opens a session from the dialler and returns both ends.
func (p *Pair) Open(t testing.TB) (ours, theirs *mux.Session) {
	t.Helper()
	ours, err := p.Dialler.Open(context.Background(), mux.Request{Target: wire.KubernetesAPI()})
	if err != nil {
		t.Fatal(err)
	}
	return ours, <-p.Accepted
}
