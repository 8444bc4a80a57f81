package acceptor

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"
)

const (
	// callsPerSecond and callBurst are how often one cluster may call. All of its
	// agents come back at once after the hub was away, each some times a second;
	// more than that only comes from an agent that is broken.
	callsPerSecond = 20
	callBurst      = 100
	// maxCallers bounds the callers that have an account; the others share one.
	maxCallers = 10_000
)

// callerKey is of whom a call is counted for, where no cluster's certificate says so.
type callerKey struct{}

// callLimit keeps one caller from calling too often. It is safe for concurrent
// use.
type callLimit struct {
	perSecond rate.Limit
	burst     int
	most      int

	mu      sync.Mutex
	callers map[string]*rate.Limiter
	others  *rate.Limiter
}

func newCallLimit(perSecond rate.Limit, burst int) *callLimit {
	return &callLimit{
		perSecond: perSecond, burst: burst, most: maxCallers,
		callers: make(map[string]*rate.Limiter), others: rate.NewLimiter(perSecond, burst),
	}
}

// Limit implements ratelimit.Limiter.
func (l *callLimit) Limit(ctx context.Context) error {
	who := caller(ctx)
	if l.account(who, time.Now()).Allow() {
		return nil
	}
	return fmt.Errorf("more than %v calls in a second from %s", l.perSecond, who)
}

// caller returns who a call is counted for: the cluster that its certificate, or
// the lease of its connection, proves, else the address.
func caller(ctx context.Context) string {
	if who, ok := ctx.Value(identityKey{}).(identity); ok {
		return "cluster " + who.cluster
	}
	if who, ok := ctx.Value(callerKey{}).(string); ok {
		return who
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "nobody"
	}
	if conn, ok := p.AuthInfo.(connection); ok {
		if cluster, _, ok := conn.lease.holder(); ok {
			return "cluster " + cluster
		}
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		host = p.Addr.String()
	}
	return "address " + host
}

// account returns the limiter of a caller.
func (l *callLimit) account(who string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.callers[who]; a != nil {
		return a
	}
	if len(l.callers) >= l.most {
		for key, a := range l.callers { // those that have not called for a while
			if a.TokensAt(now) >= float64(l.burst) {
				delete(l.callers, key)
			}
		}
	}
	if len(l.callers) >= l.most {
		return l.others
	}
	a := rate.NewLimiter(l.perSecond, l.burst)
	l.callers[who] = a
	return a
}
