package client

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
)

const (
	// askAgain is how long a token goes on that is about to end, after the source gave
	// nothing better.
	askAgain = 10 * time.Second
	// leeway is for clocks that differ.
	leeway = 10 * time.Second
)

// tokens has the client's bearer token. It is safe for concurrent use; its owner calls
// close.
type tokens struct {
	source credential.Source
	cache  credential.Cache

	life   context.Context // ends with close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // the one that asks

	mu     sync.Mutex
	now    credential.Token
	asked  time.Time // when the source answered last
	asking *asking   // nil while nobody does
}

// asking is a call of the source, which all share who want a token meanwhile.
type asking struct {
	done  chan struct{}
	token credential.Token
	err   error
}

func newTokens(source credential.Source, cache credential.Cache) *tokens {
	t := &tokens{source: source, cache: cache}
	t.life, t.cancel = context.WithCancel(context.Background())
	return t
}

// get returns a token that is good now. It waits for the source only where there is none:
// one that is about to end is good until then, and replaced behind the caller's back.
func (t *tokens) get(ctx context.Context) (credential.Token, error) {
	t.mu.Lock()
	token, a := t.now, (*asking)(nil)
	if !t.fresh() {
		a = t.ask()
		if t.lasts() {
			a = nil
		}
	}
	t.mu.Unlock()
	if a == nil {
		return token, nil
	}
	return a.wait(ctx)
}

// next returns a token that is good for a while, and waits for the source where there is
// none.
func (t *tokens) next(ctx context.Context) (credential.Token, error) {
	t.mu.Lock()
	if t.fresh() {
		defer t.mu.Unlock()
		return t.now, nil
	}
	a := t.ask()
	t.mu.Unlock()
	return a.wait(ctx)
}

// fresh tells whether the source need not be asked. mu is held.
func (t *tokens) fresh() bool {
	if t.now.Value == "" {
		return false
	}
	return time.Now().Before(t.now.Fresh()) || t.lasts() && time.Since(t.asked) < askAgain
}

// lasts tells whether the token is known not to have ended. mu is held.
func (t *tokens) lasts() bool {
	return t.now.Value != "" && time.Now().Add(leeway).Before(t.now.Expires)
}

// ask begins to ask the source, unless somebody does. mu is held.
func (t *tokens) ask() *asking {
	if t.asking != nil {
		return t.asking
	}
	a := &asking{done: make(chan struct{})}
	if t.life.Err() != nil {
		a.err = net.ErrClosed
		close(a.done)
		return a
	}
	t.asking = a
	t.tasks.Go(func() { t.fetch(a) })
	return a
}

// fetch asks the source.
func (t *tokens) fetch(a *asking) {
	ctx, cancel := context.WithTimeout(t.life, attemptTime)
	defer cancel()
	a.token, a.err = t.cache.Token(ctx, t.source)
	if a.err != nil && t.life.Err() != nil {
		a.err = net.ErrClosed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking, t.asked = nil, time.Now()
	if a.err == nil {
		t.now = a.token
	}
	close(a.done)
}

// wait waits until the source has answered.
func (a *asking) wait(ctx context.Context) (credential.Token, error) {
	select {
	case <-a.done:
		return a.token, a.err
	case <-ctx.Done():
		return credential.Token{}, context.Cause(ctx)
	}
}

// refused makes the next get ask the source, after the hub has refused a token. One that
// came meanwhile stays.
func (t *tokens) refused(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == "" || t.now.Value != value {
		return
	}
	t.cache.Refused(t.source, t.now)
	t.now = credential.Token{}
}

// close ends what is asked, and waits for it.
func (t *tokens) close() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.tasks.Wait()
}

// called is Config.TokenSource.
type called struct {
	f func(ctx context.Context) (string, time.Time, error)
}

// Key implements [credential.Source]: it is not kept on the disk.
func (called) Key() string { return "" }

// Fetch implements [credential.Source].
func (c called) Fetch(ctx context.Context) (credential.Token, error) {
	value, expires, err := c.f(ctx)
	if err != nil {
		return credential.Token{}, &credential.Error{Err: err}
	}
	token, err := credential.ParseToken([]byte(value), time.Now())
	if err != nil {
		return credential.Token{}, &credential.Error{Err: err}
	}
	if !expires.IsZero() {
		token.Expires = expires
	}
	return token, nil
}
