package acceptor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// cutTime is how long a link that must end may take to tell its peer why. Then it
// is ended without.
const cutTime = 100 * time.Millisecond

// verdict is why a link must end.
type verdict struct {
	code    wire.Code
	message string
}

// held is a link with what ends it.
type held struct {
	link    *mux.Link
	cluster string
	lease   *lease

	once    sync.Once
	decided chan struct{} // closed when verdict is set
	verdict verdict
}

func newHeld(link *mux.Link, cluster string, lease *lease) *held {
	return &held{link: link, cluster: cluster, lease: lease, decided: make(chan struct{})}
}

// decide makes the link end. Only the first verdict counts.
func (h *held) decide(v verdict) {
	h.once.Do(func() {
		h.verdict = v
		close(h.decided)
	})
}

// reason returns the verdict's message, "" while there is none.
func (h *held) reason() string {
	select {
	case <-h.decided:
		return h.verdict.message
	default:
		return ""
	}
}

// Cut ends all links of a cluster because the cluster is not trusted any more. The
// agents get a GOAWAY with code and message, and all sessions fail within a
// tenth of a second with LINK_LOST and the message. It returns how many links that
// are, and does not wait.
//
// What made the cluster untrusted has to be in force in ServerConfig.Cluster
// before: a link that is about to begin is judged again after Cut can see it.
func (s *Server) Cut(cluster string, code wire.Code, message string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.links {
		if h.cluster == cluster {
			h.decide(verdict{code, message})
			n++
		}
	}
	return n
}

// guard ends the link when its certificate does, or when that is decided. It
// returns once the link has ended.
func (h *held) guard(cancel context.CancelCauseFunc) {
	expiry := time.NewTimer(time.Until(h.lease.expires()))
	defer expiry.Stop()
	for decided := false; !decided; {
		select {
		case <-h.link.Done():
			return
		case <-h.decided:
			decided = true
		case <-expiry.C:
			// It may have been renewed since the timer was set.
			end := h.lease.expires()
			if left := time.Until(end); left > 0 {
				expiry.Reset(left)
				continue
			}
			h.decide(verdict{wire.CodeUnauthenticated, fmt.Sprintf("the agent's certificate expired at %s: issue a new one", end.UTC().Format(time.RFC3339))})
		}
	}
	late := time.AfterFunc(cutTime, func() { cancel(errors.New(h.verdict.message)) })
	defer late.Stop()
	// Without sessions this ends the link by itself. It is never cut short: sessions
	// that are left fail with the link, which is what the agent's callers may retry.
	if err := h.link.Drain(context.Background(), h.verdict.code, h.verdict.message); err != nil {
		cancel(err)
	}
	<-h.link.Done()
}
