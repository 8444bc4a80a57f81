package testbed

import (
	"slices"
	"testing"
	"time"
)

func TestHeldUp(t *testing.T) {
	// In a time of its own, since the machine may really hold this test up.
	now := time.Now().Add(time.Hour)
	keep(now.Add(-beat-heldUpFrom/2), now)
	if held := HeldUp(now.Add(-time.Minute)); held != 0 {
		t.Errorf("a look that is hardly late counts: %v", held)
	}
	keep(now.Add(-beat-3*time.Second), now)
	for since, want := range map[time.Duration]time.Duration{time.Minute: 3 * time.Second, time.Second: time.Second, 0: 0} {
		if held := HeldUp(now.Add(-since)); held != want {
			t.Errorf("in the last %v: %v, want %v", since, held, want)
		}
	}
	delays.mu.Lock()
	defer delays.mu.Unlock()
	delays.all = slices.DeleteFunc(delays.all, func(d delay) bool { return d.end.Equal(now) })
}
