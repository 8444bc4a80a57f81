package balance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// load is clients that make one request after the other.
type load struct {
	w       *world
	stop    context.CancelFunc
	running sync.WaitGroup

	gets, posts atomic.Int64 // that were answered well

	mu         sync.Mutex
	lostGets   []error
	lostPosts  []error
	lastServed time.Time
	gap        time.Duration // the longest time in which nobody was served
}

// startLoad starts clients that get and clients that post, for at most three minutes.
func (w *world) startLoad(t *testing.T, gets, posts int) *load {
	t.Helper()
	l := &load{w: w, lastServed: time.Now()}
	var ctx context.Context
	ctx, l.stop = context.WithTimeout(context.Background(), 3*time.Minute)
	for range gets {
		l.running.Go(func() { l.run(ctx, http.MethodGet, versionPath, "", &l.gets, &l.lostGets) })
	}
	for range posts {
		l.running.Go(func() { l.run(ctx, http.MethodPost, reviewPath, review, &l.posts, &l.lostPosts) })
	}
	t.Cleanup(l.end)
	return l
}

// end waits until the clients have ended.
func (l *load) end() { l.stop(); l.running.Wait() }

// run is one client.
func (l *load) run(ctx context.Context, method, path, body string, good *atomic.Int64, lost *[]error) {
	for ctx.Err() == nil {
		err := l.w.request(ctx, method, path, body)
		if ctx.Err() != nil {
			return // cut by the end
		}
		l.mu.Lock()
		if err != nil {
			*lost = append(*lost, err)
		} else {
			good.Add(1)
			l.gap = max(l.gap, l.unserved())
			l.lastServed = time.Now()
		}
		l.mu.Unlock()
	}
}

// served waits until n more requests were answered well.
func (l *load) served(ctx context.Context, t *testing.T, n int64) {
	t.Helper()
	goal := l.gets.Load() + l.posts.Load() + n
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for l.gets.Load()+l.posts.Load() < goal {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d requests were answered, %d are wanted", l.gets.Load()+l.posts.Load(), goal)
		}
	}
}

// lost returns what failed since the last call.
func (l *load) lost() (gets, posts []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gets, posts = l.lostGets, l.lostPosts
	l.lostGets, l.lostPosts = nil, nil
	return gets, posts
}

// longestGap returns the longest time in which nobody was served since the last call.
func (l *load) longestGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := max(l.gap, l.unserved())
	l.gap = 0
	return gap
}

// unserved is for how long nobody was served by now, but for times in which the machine
// let nobody work. mu is held.
func (l *load) unserved() time.Duration {
	return time.Since(l.lastServed) - testbed.HeldUp(l.lastServed)
}

// answered is an answer of the hub.
type answered struct {
	status int
	header http.Header
	body   string
	took   time.Duration
}

func (w *world) do(ctx context.Context, method, path, body string) (answered, error) {
	start := time.Now()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+w.address.Addr()+path, strings.NewReader(body))
	if err != nil {
		return answered{}, err
	}
	r.Header.Set("Authorization", "Bearer "+userToken)
	r.Header.Set("Content-Type", "application/json")
	res, err := w.client.Do(r)
	if err != nil {
		return answered{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answered{res.StatusCode, res.Header, string(text), time.Since(start)}, err
}

// request makes one request and reports what is no success.
func (w *world) request(ctx context.Context, method, path, body string) error {
	a, err := w.do(ctx, method, path, body)
	if err == nil && a.status/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return err
}
