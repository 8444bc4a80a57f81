package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// passThrough says whose tokens the managed clusters judge. The zero value is for
// no cluster. It is safe for concurrent use.
type passThrough struct {
	clusters []string
	// hub tells tokens of the reviewing cluster from others; nil where no cluster
	// reviews.
	hub *hubTokens
}

// everyCluster in Config.PassThrough stands for all of them.
const everyCluster = "*"

func (p *passThrough) takes(cluster string) bool {
	return cluster != "" && (slices.Contains(p.clusters, cluster) || slices.Contains(p.clusters, everyCluster))
}

// pass decides whether a token that no backend knows may leave the hub. A token
// that the hub could know, and cannot tell now, stays: stale says why.
func (a *attempt) pass(ctx context.Context, token string, stale error) (*authenticator.Response, error) {
	if stale != nil {
		return nil, &fault.Error{
			Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnavailable, RetryAfter: unavailableRetry,
			// Not the reason, which has paths of the hub: its log and health have it.
			Err: errors.New("the hub's own list of callers could not be read again, so that it cannot tell whether the token is one of them"),
		}
	}
	if err := notExpired(token); err != nil {
		return nil, err
	}
	if a.chain.pass.hub != nil {
		if err := a.chain.pass.hub.foreign(ctx, token); err != nil {
			return nil, err
		}
	}
	a.method, a.forward = MethodPassThrough, func() string { return token }
	return &authenticator.Response{User: passThroughUser()}, nil
}

// JudgedByTarget is the caller of a session whose bytes the hub cannot read: the
// target alone authenticates them. In policies, limits and audit lines such a caller
// is [PassThroughUser].
func JudgedByTarget() Caller { return Caller{User: passThroughUser(), Method: MethodPassThrough} }

func passThroughUser() user.Info {
	return &user.DefaultInfo{Name: PassThroughUser, Groups: []string{PassThroughUser}}
}

// notExpired returns a refusal for a token that says itself that it is over.
func notExpired(token string) error {
	if expires, ok := expiry(token); ok && !time.Now().Before(expires) {
		return unauthenticated(fmt.Errorf("the token expired at %s: get a new one", expires.UTC().Format(time.RFC3339)))
	}
	return nil
}
