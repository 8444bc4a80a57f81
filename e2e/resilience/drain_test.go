package resilience

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// slow is a service whose answers begin at once and end when they are told to.
type slow struct {
	path    string
	release chan struct{}
}

const firstHalf, secondHalf = "first half\n", "second half\n"

func (l *lab) startSlow(t *testing.T) *slow {
	t.Helper()
	s := &slow{release: make(chan struct{})}
	s.path = l.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.WriteString(w, firstHalf)
		if err = errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
			return // the caller misses it
		}
		select {
		case <-s.release:
			_, _ = io.WriteString(w, secondHalf) // likewise
		case <-r.Context().Done():
		}
	}))
	return s
}

// begin starts a request and reads the first half of its answer.
func (s *slow) begin(t *testing.T, c *caller) io.ReadCloser {
	t.Helper()
	resp, err := c.open(t.Context(), http.MethodGet, s.path+"/", nil)
	must(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() }) // may have failed before
	got := make([]byte, len(firstHalf))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != firstHalf {
		t.Fatalf("%s: %q, %v", resp.Status, got, err)
	}
	return resp.Body
}

// finish lets the answer go on and wants all of it.
func (s *slow) finish(t *testing.T, body io.Reader) {
	t.Helper()
	close(s.release)
	rest, err := io.ReadAll(body)
	if err != nil || string(rest) != secondHalf {
		t.Errorf("the rest of the answer: %q, %v", rest, err)
	}
}

func testDrain(t *testing.T, l *lab) {
	h := l.startHub(t, "drain")
	c := h.caller(t, true)
	first := h.startAgent(t, "agent-1")
	h.awaitServing(t, c)
	slow1 := l.startSlow(t)
	body1 := slow1.begin(t, c)
	second := h.startAgent(t, "agent-2")
	h.awaitAgents(t, 2)

	t.Run("K1,K2: an agent that gets SIGTERM finishes what is under way, and new requests go to the other agent", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		must(t, syscall.Kill(first.PID(), syscall.SIGTERM))
		for i := range 100 {
			a, err := c.get(ctx, versionPath)
			if err := errors.Join(err, a.wantOK()); err != nil {
				t.Fatalf("request %d while one of two agents drains: %v", i, err)
			}
		}
		stillRuns(t, first)
		slow1.finish(t, body1)
		awaitEnd(t, first)
	})

	t.Run("K1: the last agent that gets SIGTERM finishes what is under way, and new requests get a 503", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		slow2 := l.startSlow(t)
		body2 := slow2.begin(t, c)
		must(t, syscall.Kill(second.PID(), syscall.SIGTERM))
		must(t, testbed.Poll(ctx, "the agent to refuse requests", func(ctx context.Context) error {
			a, err := c.get(ctx, versionPath)
			switch {
			case err != nil:
				return err
			case a.status == http.StatusOK:
				return errors.New("it still takes them")
			}
			l.inTime(t, "the answer", a.took, away)
			check(t, a.wantAway("hub", "tunnel", "agent"))
			return nil
		}))
		stillRuns(t, second)
		slow2.finish(t, body2)
		awaitEnd(t, second)
	})
}

// stillRuns wants a process that has not ended.
func stillRuns(t *testing.T, p *testbed.Process) {
	t.Helper()
	select {
	case <-p.Done():
		t.Error("the agent ended before its last request")
	default:
	}
}

// awaitEnd wants a process to end by itself, in good order.
func awaitEnd(t *testing.T, p *testbed.Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Error("the agent did not end after its last request")
		return
	}
	text, err := os.ReadFile(p.Log())
	must(t, err)
	if !strings.Contains(string(text), "agent has ended") || strings.Contains(string(text), "sessions were cut") {
		t.Errorf("the agent did not drain: %s", text)
	}
}
