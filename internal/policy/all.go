package policy

import (
	"context"
	"errors"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// All returns an authorizer that allows what every one of authorizers allows. They
// are asked in order, up to the first that does not allow or fails, so the one
// that answers from memory comes first. None at all allow nothing.
func All(authorizers ...Authorizer) Authorizer {
	if len(authorizers) == 1 {
		return authorizers[0]
	}
	return all(authorizers)
}

type all []Authorizer

// Authorize implements Authorizer. What allows is named by the last that was
// asked.
func (a all) Authorize(ctx context.Context, r Request) (Decision, error) {
	d := Decision{Rule: RuleInvalid, Reason: "there is no policy"}
	for _, authorizer := range a {
		var err error
		if d, err = authorizer.Authorize(ctx, r); err != nil || !d.Allowed {
			d.Allowed = false
			return d, err
		}
	}
	return d, nil
}

// Check returns nil for what a allows, and otherwise a [*fault.Error] of hop that
// says why: permission denied for a decision, unavailable where none could be
// taken.
func Check(ctx context.Context, a Authorizer, r Request, hop wire.Hop) (Decision, error) {
	d, err := a.Authorize(ctx, r)
	switch {
	case err != nil && fault.As(err) != nil:
		return Decision{Rule: d.Rule}, err
	case err != nil:
		return Decision{Rule: d.Rule}, &fault.Error{Hop: hop, Op: "check policy", Code: wire.CodeUnavailable, Cluster: r.Cluster.Name, Err: err}
	case !d.Allowed:
		return d, &fault.Error{Hop: hop, Op: "check policy", Code: wire.CodePermissionDenied, Cluster: r.Cluster.Name, Err: errors.New(d.Reason)}
	default:
		return d, nil
	}
}
