// Package frames measures the data path between two links without a network:
// what wire and mux do for each DATA frame.
package frames

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// pipe is one end of an in-memory stream of messages. It hands over the encoded
// buffers as gRPC does, without copying them and without allocating.
type pipe struct {
	out  chan<- mem.BufferSlice
	in   <-chan mem.BufferSlice
	over chan struct{}
	once *sync.Once
	// frames counts the DATA frames that arrived; shared by both ends.
	frames *atomic.Uint64
}

func (p *pipe) Send(b *wire.Batch) error {
	out, err := wire.Codec{}.Marshal(b)
	if err != nil {
		return err
	}
	select {
	case p.out <- out:
		return nil
	case <-p.over:
		out.Free()
		return io.EOF
	}
}

func (p *pipe) Recv(r *wire.Received) error {
	select {
	case in := <-p.in:
		err := wire.Codec{}.Unmarshal(in, r)
		in.Free()
		data := uint64(0)
		for i := range r.Frames {
			if r.Frames[i].Kind == wire.KindData {
				data++
			}
		}
		p.frames.Add(data)
		return err
	case <-p.over:
		return io.EOF
	}
}

func (p *pipe) Close(bool) { p.once.Do(func() { close(p.over) }) }

// Path is a session over two links in one process. Close it.
type Path struct {
	frames  atomic.Uint64
	sender  *mux.Session
	ended   chan error
	cancel  context.CancelFunc
	running sync.WaitGroup
	read    atomic.Int64
	moved   chan struct{} // signalled when something was read
}

// Open returns a path of one link whose far end reads everything, as a splice
// does. With relays, as many links follow, and a splice of two sessions stands
// between one and the next.
func Open(relays int) (*Path, error) {
	p := &Path{ended: make(chan error, 1), moved: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	handler := p.handle
	var near *mux.Link
	for range relays + 1 {
		near = p.link(ctx, handler)
		handler = relay(near)
	}
	var err error
	if p.sender, err = near.Open(ctx, mux.Request{Target: wire.Address("sink", 1)}); err != nil {
		return nil, errors.Join(fmt.Errorf("open: %w", err), p.Close())
	}
	return p, nil
}

// link runs both ends of a link and returns the one that opens sessions.
func (p *Path) link(ctx context.Context, handler func(context.Context, *mux.Incoming)) *mux.Link {
	ab, ba := make(chan mem.BufferSlice, 1), make(chan mem.BufferSlice, 1)
	over, once := make(chan struct{}), new(sync.Once)
	near := mux.New(&pipe{ab, ba, over, once, &p.frames}, mux.Config{Dialler: true, Hop: wire.HopAgent})
	far := mux.New(&pipe{ba, ab, over, once, &p.frames}, mux.Config{Hop: wire.HopHub, Handler: handler})
	for _, l := range []*mux.Link{near, far} {
		// Both links end by the cancellation, which is no failure.
		p.running.Go(func() { _ = l.Run(ctx) })
	}
	return near
}

// relay leads sessions on over next.
func relay(next *mux.Link) func(context.Context, *mux.Incoming) {
	return func(ctx context.Context, in *mux.Incoming) {
		onward, err := next.Open(ctx, mux.Request{Target: in.Target()})
		if err != nil {
			in.Refuse(wire.CodeLinkLost, wire.HopHub, err.Error())
			return
		}
		s, err := in.Accept()
		if err != nil {
			_ = onward.Close() // the sender gave up
			return
		}
		splice.Join(s, onward, wire.HopHub)
	}
}

// handle is the far end.
func (p *Path) handle(_ context.Context, in *mux.Incoming) {
	s, err := in.Accept()
	if err != nil {
		return // the sender gave up
	}
	_, err = s.WriteTo(counter{p})
	p.ended <- errors.Join(err, s.Close())
}

// counter counts what is read.
type counter struct{ p *Path }

func (c counter) Write(b []byte) (int, error) {
	c.p.read.Add(int64(len(b)))
	select {
	case c.p.moved <- struct{}{}:
	default: // it is known already
	}
	return len(b), nil
}

// endless gives n bytes of whatever the buffers hold.
type endless struct{ left int64 }

func (e *endless) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), e.left))
	e.left -= int64(n)
	return n, nil
}

// Move sends n bytes and returns once all of them were read.
func (p *Path) Move(n int64) error {
	want := p.read.Load() + n
	if _, err := p.sender.ReadFrom(&endless{n}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for p.read.Load() < want {
		select {
		case <-p.moved:
		case err := <-p.ended:
			return errors.Join(errors.New("the far end ended early"), err)
		}
	}
	return nil
}

// Frames returns how many DATA frames arrived so far.
func (p *Path) Frames() uint64 { return p.frames.Load() }

// Close ends both links and waits for them.
func (p *Path) Close() error {
	p.cancel()
	p.running.Wait()
	return nil
}

// Allocations moves n bytes after as many for warming up, and returns how many
// allocations there were for each DATA frame, the collector's refills of pools
// included. Nothing else should run in the process.
func Allocations(n int64) (perFrame float64, err error) {
	p, err := Open(0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Move(n); err != nil {
		return 0, err
	}
	var before, after runtime.MemStats
	frames := p.Frames()
	runtime.ReadMemStats(&before)
	if err := p.Move(n); err != nil {
		return 0, err
	}
	runtime.ReadMemStats(&after)
	if frames = p.Frames() - frames; frames == 0 {
		return 0, errors.New("no frame arrived")
	}
	return float64(after.Mallocs-before.Mallocs) / float64(frames), nil
}
