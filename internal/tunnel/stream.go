package tunnel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/culvertdev/culvert/internal/wire"
)

// flushTime is how long a dialler waits for the hub to end a drained stream. The hub does
// so as soon as it has received everything.
const flushTime = 5 * time.Second

// clientTransport is the dialler's end of a stream.
type clientTransport struct {
	stream grpc.ClientStream
	cancel context.CancelFunc

	sending sync.Mutex // gRPC allows no CloseSend beside SendMsg

	mu    sync.Mutex // Close may still run when the link has ended
	over  bool
	flush *time.Timer
}

func (t *clientTransport) Send(b *wire.Batch) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	if err := t.stream.SendMsg(b); err != nil {
		// The status of the stream says more than "EOF", and RecvMsg returns it.
		return fmt.Errorf("send to the hub: %w", err)
	}
	return nil
}

func (t *clientTransport) Recv(r *wire.Received) error { return t.stream.RecvMsg(r) }

// Close with flush half-closes the stream: the hub then ends it, after it has
// received everything. A Send under way is waited for, for at most flushTime.
func (t *clientTransport) Close(flush bool) {
	if !flush || !t.startFlush() {
		t.cancel()
		return
	}
	t.sending.Lock()
	defer t.sending.Unlock()
	if t.stream.CloseSend() != nil {
		t.cancel()
	}
}

// startFlush bounds a flush. It reports false when the link is over already.
func (t *clientTransport) startFlush() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.flush = time.AfterFunc(flushTime, t.cancel)
	}
	return !t.over
}

// end cancels the stream and stops what Close has left behind, or will.
func (t *clientTransport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.cancel()
	if t.flush != nil {
		t.flush.Stop()
	}
}
