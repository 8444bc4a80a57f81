package resilience

import (
	"context"
	"testing"
	"time"
)

// control is what the others are held against.
func (l *lab) control(t *testing.T) *stall {
	h := l.startHub(t, "no-stall")
	h.startAgent(t, "agent")
	c := h.caller(t, true)
	h.awaitServing(t, c)
	return &stall{name: "no stall", request: versionRequest(c), ended: make(chan struct{})}
}

// measureOnly measures before the others stall, and from then on until over is closed.
func (s *stall) measureOnly(ctx context.Context, over <-chan time.Time) {
	defer close(s.ended)
	if s.before, s.err = measure(ctx, stallBaseline, s.request); s.err == nil {
		s.while, s.err = measureUntil(ctx, over, s.request)
	}
}

// slower is how many times longer something took than before, at least once.
func slower(before, while time.Duration) float64 { return max(1, float64(while)/float64(before)) }
