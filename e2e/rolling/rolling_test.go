package rolling

import (
	"strings"
	"testing"
	"time"
)

const (
	readers  = 50
	watchers = 2
)

func TestRollingRestart(t *testing.T) {
	w := startWorld(t)

	t.Run("K16: a hub whose socket the service manager holds is restarted twice under fifty kubectl loops and two watches, and no request fails", func(t *testing.T) {
		s := w.run(t, "held", true, 2)
		for i, err := range s.failures {
			if i < 5 {
				t.Errorf("failed: %v", err)
			}
		}
	})

	t.Run("K16: without it, those alone fail that dial while nobody listens, at once and with that reason", func(t *testing.T) {
		s := w.run(t, "own", false, 1)
		for _, err := range s.failures {
			if text := err.Error(); !strings.Contains(text, "connection refused") && !strings.Contains(text, "connection reset") {
				t.Errorf("failed: %v", err)
			}
		}
	})
}

// run restarts a hub under load and returns what was seen of it.
func (w *world) run(t *testing.T, name string, held bool, restarts int) summary {
	t.Helper()
	h := w.newHub(t, name, held)
	ctx := within(t, 8*time.Minute)
	l := startLoops(ctx, h.kubectl, readers, watchers)
	begun := time.Now()
	err := l.after(ctx, begun)
	var downs []time.Duration
	for range restarts {
		if err != nil {
			break
		}
		drained, started := h.restart(t)
		t.Logf("%s: drained in %v, served %v after that", name, drained.Round(time.Millisecond), started.Round(time.Millisecond))
		downs = append(downs, drained+started)
		err = l.after(ctx, time.Now())
	}
	s := l.end()
	t.Logf("%s: %v; %d restarts took %v", name, s, len(downs), downs)
	must(t, err)
	if s.requests < readers*(restarts+1) {
		t.Errorf("only %d requests", s.requests)
	}
	return s
}
