package identity

import (
	"context"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/cache"
)

// boundedCache is the token cache of k8s.io/apiserver (one lookup at a time for
// one token, nothing kept of an error) with a bound on its size: that cache
// forgets only by age, so that whoever sends many tokens could fill the memory.
// After limit verdicts it is replaced by an empty one, which costs each token in
// use one more review. It is safe for concurrent use.
type boundedCache struct {
	inner                  authenticator.Token
	successTTL, failureTTL time.Duration
	limit                  int64
	current                atomic.Pointer[cacheGeneration]
}

type cacheGeneration struct {
	cache    authenticator.Token
	verdicts atomic.Int64
}

func newBoundedCache(inner authenticator.Token, successTTL, failureTTL time.Duration, limit int64) *boundedCache {
	b := &boundedCache{inner: inner, successTTL: successTTL, failureTTL: failureTTL, limit: limit}
	b.current.Store(b.generation())
	return b
}

// AuthenticateToken implements authenticator.Token.
func (b *boundedCache) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return b.current.Load().cache.AuthenticateToken(ctx, token)
}

func (b *boundedCache) generation() *cacheGeneration {
	g := &cacheGeneration{}
	lookup := func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		response, ok, err := b.inner.AuthenticateToken(ctx, token)
		if err == nil && g.verdicts.Add(1) == b.limit {
			b.current.Store(b.generation())
		}
		return response, ok, err
	}
	g.cache = cache.New(authenticator.TokenFunc(lookup), false, b.successTTL, b.failureTTL)
	return g
}
