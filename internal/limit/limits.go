package limit

import (
	"errors"
	"fmt"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Scope is what a bound is for.
type Scope uint8

// The scopes, in the order in which a request meets them.
const (
	Remote Scope = iota
	User
	Cluster
	scopes
)

var scopeNames = [...]string{Remote: "remote", User: "user", Cluster: "cluster"}

// String returns the name of the scope in the configuration.
func (s Scope) String() string {
	if s >= scopes {
		return "unknown"
	}
	return scopeNames[s]
}

// Kind is what is admitted.
type Kind uint8

// The kinds.
const (
	// Request is an HTTP request; it counts as concurrent.
	Request Kind = iota
	// Session is a raw session, or a request that asks for an upgrade or stays
	// open by its nature, such as a watch. It counts as a session.
	Session
	kinds
)

// concurrencyRetry is what callers are told that have too much under way: nobody
// knows when that ends.
const concurrencyRetry = time.Second

// Limits has the tables of all scopes. It is safe for concurrent use; a nil
// Limits bounds nothing.
type Limits struct {
	tables [scopes]*table
	body   int64
}

// New returns the Limits of cfg, or nil, nil when it bounds nothing.
func New(cfg Config) (*Limits, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	keys := cfg.Keys
	if keys == 0 {
		keys = DefaultKeys
	}
	l := &Limits{body: cfg.Body.Value()}
	bounds := l.body > 0
	for scope, b := range cfg.scopes() {
		if b != nil && *b != (Bounds{}) {
			l.tables[scope], bounds = newTable(*b, keys), true
		}
	}
	if !bounds {
		return nil, nil
	}
	return l, nil
}

// Hold is what requests under way take of concurrent bounds. The zero Hold holds
// nothing. It belongs to one request, must not be copied once it is used, and is
// not safe for concurrent use.
type Hold struct {
	held [scopes]*entry
	kind [scopes]Kind
	from *Limits
}

// Release gives everything back. It may be called more than once.
func (h *Hold) Release() {
	for scope, e := range h.held {
		if e != nil {
			h.held[scope] = nil
			h.from.tables[scope].release(e, h.kind[scope])
		}
	}
}

// RefusalError says which bound was met. It is in the chain of what [Limits.Admit]
// returns.
type RefusalError struct {
	Scope Scope
	// Bound is the field of [Bounds] as in the configuration, and Limit its value.
	Bound string
	Limit float64
	// RetryAfter is when another try makes sense.
	RetryAfter time.Duration
}

// Error names the bound; it has nothing of the caller in it.
func (r *RefusalError) Error() string {
	switch r.Bound {
	case boundRate:
		return fmt.Sprintf("more than %v requests per second of this %s", r.Limit, r.Scope)
	case boundSessions:
		return fmt.Sprintf("this %s has %v sessions open already", r.Scope, r.Limit)
	default:
		return fmt.Sprintf("this %s has %v requests under way already", r.Scope, r.Limit)
	}
}

// Admit takes a token of key's rate, and a place among what is under way until
// h is released. At most one key of each scope can be in h; admitting a second
// one is a defect and panics. The error is a [*fault.Error].
func (l *Limits) Admit(h *Hold, scope Scope, key string, kind Kind) error {
	if l == nil || l.tables[scope] == nil {
		return nil
	}
	if h.held[scope] != nil {
		panic("limit: a Hold has one key of a scope")
	}
	e, refusal := l.tables[scope].admit(key, kind, time.Now())
	if refusal != nil {
		refusal.Scope = scope
		return &fault.Error{
			Hop: wire.HopHub, Op: "limit", Code: wire.CodeTooManyRequests, RetryAfter: refusal.RetryAfter, Err: refusal,
		}
	}
	h.from, h.held[scope], h.kind[scope] = l, e, kind
	return nil
}

// AsRefusal returns the refusal in err's chain, or nil.
func AsRefusal(err error) *RefusalError {
	r, _ := errors.AsType[*RefusalError](err)
	return r
}
