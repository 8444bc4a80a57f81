package testbed

import (
	"context"
	"fmt"
	"time"
)

// pollInterval is the pause between two looks at a condition: short against the
// second or more that a server takes to start, long enough to cost nothing.
const pollInterval = 25 * time.Millisecond

// Poll calls check at once and then every 25 ms until it returns nil. When ctx
// ends first, the error names what was waited for and wraps both the context's
// cause and the last answer of check. The context given to check ends after two
// seconds, so that one stuck attempt does not use up the whole wait; after an attempt that
// took as long the next one has twice the time, since it may be the machine that is slow.
func Poll(ctx context.Context, what string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for patience := 2 * time.Second; ; {
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := check(attempt)
		if attempt.Err() != nil {
			patience *= 2
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last answer: %w", what, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
