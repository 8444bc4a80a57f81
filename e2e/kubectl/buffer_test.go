package kubectl

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
)

// syncBuffer is the output of a process that runs. It is safe for concurrent use.
type syncBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and made anew by each write
}

func newSyncBuffer() *syncBuffer { return &syncBuffer{changed: make(chan struct{})} }

// Write implements io.Writer.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the output has text.
func (b *syncBuffer) await(ctx context.Context, text string) error {
	for {
		b.mu.Lock()
		has, changed := strings.Contains(b.text.String(), text), b.changed
		b.mu.Unlock()
		if has {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q: %w; there is %q", text, context.Cause(ctx), b.String())
		}
	}
}
