package client

import (
	"context"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
)

// tokens has the client's bearer token. It is safe for concurrent use.
type tokens struct {
	source credential.Source
	cache  credential.Cache

	mu  sync.Mutex // held while the source is asked, so that it is asked once
	now credential.Token
}

func newTokens(source credential.Source, cache credential.Cache) *tokens {
	return &tokens{source: source, cache: cache}
}

// get returns a token that is good for a while.
func (t *tokens) get(ctx context.Context) (credential.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now.Value != "" && time.Now().Before(t.now.Fresh()) {
		return t.now, nil
	}
	token, err := t.cache.Token(ctx, t.source)
	if err != nil {
		return credential.Token{}, err
	}
	t.now = token
	return token, nil
}

// forget makes the next get ask the source, after the hub has refused a token.
func (t *tokens) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cache.Refused(t.source, t.now)
	t.now = credential.Token{}
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
