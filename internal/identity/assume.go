package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// MayImpersonate decides whether caller, an identity of the hub, may act as another
// one. Only true without an error allows. reason is for the caller of the request
// and says what would allow it; an error says that nobody could decide, and is a
// *fault.Error or becomes one of unavailable.
type MayImpersonate func(ctx context.Context, caller user.Info, as Assumed) (allowed bool, reason string, err error)

// Assume returns caller, or whom caller acts as where h asks for that and may allows
// it. A nil may allows nobody. The result is of the hub like any other: policies and
// limits apply to it and [Mapper.Map] maps it, with the caller kept in extra; [Real]
// returns the caller. Nothing is removed from h, which [Strip] does.
//
// A caller whose token the managed cluster judges is refused, since the hub does not
// know who that is. The error is a *fault.Error: invalid target (400) for fields
// that cannot be followed, permission denied (403), unavailable (503), or what may
// returned.
func Assume(ctx context.Context, h http.Header, caller Caller, may MayImpersonate) (Caller, error) {
	as, err := ParseAssumed(h)
	switch {
	case err != nil:
		return Caller{}, err
	case as == nil:
		return caller, nil
	}
	if caller.PassThrough() {
		return Caller{}, refusedAssumed(errors.New("the hub does not know whose token this is: act as another user with a token of the hub, or directly at the cluster"))
	}
	if caller.User == nil {
		return Caller{}, refusedAssumed(errors.New("the request has no caller"))
	}
	become := as.user()
	if reason := refusedUser(become); reason != "" {
		return Caller{}, refusedAssumed(errors.New(reason))
	}
	if may == nil {
		return Caller{}, refusedAssumed(errors.New("nobody may act as another user at this hub"))
	}
	allowed, reason, err := may(ctx, caller.User, *as)
	switch {
	case err != nil && fault.As(err) != nil:
		return Caller{}, fault.As(err)
	case err != nil && ctx.Err() != nil:
		return Caller{}, ended(ctx)
	case err != nil:
		return Caller{}, &fault.Error{
			Hop: wire.HopHub, Op: "impersonate", Code: wire.CodeUnavailable, RetryAfter: unavailableRetry,
			Err: fmt.Errorf("nobody could decide whether %q may act as %q: %w", caller.User.GetName(), as.User, err),
		}
	case !allowed:
		if reason == "" {
			reason = "no rule allows it"
		}
		return Caller{}, refusedAssumed(fmt.Errorf("%q may not act as %q: %s", caller.User.GetName(), as.User, reason))
	}
	caller.User = &assumedUser{Info: become, real: caller.User}
	return caller, nil
}

func refusedAssumed(err error) *fault.Error {
	return &fault.Error{Hop: wire.HopHub, Op: "impersonate", Code: wire.CodePermissionDenied, Err: err}
}

// assumedUser is whom somebody acts as. It is a type, and not a key of extra, since
// backends choose extra.
type assumedUser struct {
	user.Info

	real user.Info
}

// Real returns the caller behind u: u itself, unless it came from [Assume].
func Real(u user.Info) user.Info {
	if a, ok := u.(*assumedUser); ok {
		return a.real
	}
	return u
}
