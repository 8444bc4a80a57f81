package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	requestunion "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Method says what vouched for a caller. The values are few and fixed, so that
// they can be labels of metrics and fields of audit lines.
type Method string

// The methods, in the order in which they are tried.
const (
	MethodCertificate Method = "client-certificate"
	MethodStaticToken Method = "static-token"
	MethodOIDC        Method = "oidc"
	MethodTokenReview Method = "token-review"
	// MethodPassThrough is of a token which nobody at the hub vouches for.
	MethodPassThrough Method = "pass-through"
)

// PassThroughUser is the name, and the only group, of a caller whose token the
// managed cluster judges. It stands in policies, limits and audit lines for
// whoever that is. No backend can name it, nobody can act as it, and [Mapper.Map]
// refuses it.
const PassThroughUser = "system:culvert:pass-through"

// Caller is who sent a request. It is plain data, good for the request alone; the
// zero value is nobody.
type Caller struct {
	// User is whom the request is of at the hub. It is never nil in a Caller that
	// came without an error, is shared between requests and must not be changed.
	// After [Assume] it is whom the caller acts as; [Real] has the caller then.
	User user.Info
	// Method is what vouched for the caller.
	Method Method

	// forward returns the token of a pass-through: a function, since a Caller may
	// come to be printed.
	forward func() string
}

// PassThrough says whether the managed cluster judges the caller. Such a request
// is sent with [Caller.Authorization] and without any Impersonate field.
func (c Caller) PassThrough() bool { return c.forward != nil }

// Authorization returns the value of the Authorization field that goes to the
// managed cluster; "" unless [Caller.PassThrough]. It is a credential: it goes to
// that cluster's Kubernetes API, after [Strip], and nowhere else.
func (c Caller) Authorization() string {
	if c.forward == nil {
		return ""
	}
	return "Bearer " + c.forward()
}

// Identify returns who sent r, by the token in its Authorization header or in its
// WebSocket subprotocols or, where it has neither and Config.ClientCA is set, by
// the client certificate of its connection. On success a token is removed from
// r.Header.
//
// cluster is the managed cluster whose Kubernetes API the request is for, and
// empty for everything else: services, addresses and the hub's own paths. Where
// Config.PassThrough has it, a token that the hub does not know is accepted with
// [MethodPassThrough] instead of refused. That never happens to a token from
// Culvert-Authorization, which is of the hub by its name.
//
// The error is a *fault.Error; see the package's Errors section. The Caller beside
// it has at most the Method of the backend that refused or failed. No call takes
// longer than the timeouts of the backends together.
func (c *Chain) Identify(r *http.Request, cluster string) (Caller, error) {
	if who, err := c.byCertificate(r); who != nil || err != nil {
		return Caller{User: who, Method: MethodCertificate}, err
	}
	if err := checkCredential(r); err != nil {
		return Caller{}, unauthenticated(err)
	}
	a := &attempt{chain: c, passes: c.pass.takes(cluster) && !hasField(r.Header, foldedCredential)}
	request := requestunion.NewFailOnError(bearertoken.New(a), websocket.NewProtocolAuthenticator(a))
	response, ok, err := request.AuthenticateRequest(r)
	switch {
	case err != nil && fault.As(err) != nil:
		return Caller{Method: a.method}, fault.As(err)
	case err != nil:
		// What is left is how the request authenticators put a bad subprotocol.
		return Caller{}, unauthenticated(err)
	case !ok || response == nil || response.User == nil:
		return Caller{}, unauthenticated(errRefused)
	}
	return Caller{User: response.User, Method: a.method, forward: a.forward}, nil
}

// Authenticate returns who sent r where nothing but the hub may judge: it is
// [Chain.Identify] without a cluster.
func (c *Chain) Authenticate(r *http.Request) (user.Info, error) {
	caller, err := c.Identify(r, "")
	if err != nil {
		return nil, err
	}
	return caller.User, nil
}

// byCertificate returns whom the connection's certificate names, or nil where a
// token decides: there is no certificate, or the request has a token, which is
// what a caller chose for this request. It is judged for each request: a
// connection may outlive its certificate.
func (c *Chain) byCertificate(r *http.Request) (user.Info, error) {
	if c.roots == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || hasToken(r) {
		return nil, nil
	}
	cert, err := verifyClient(c.roots, r.TLS)
	if err != nil {
		return nil, unauthenticated(err)
	}
	return certificateUser(cert)
}

// tokenJudge is one backend, and how what it says is called.
type tokenJudge struct {
	method Method
	tokens authenticator.Token
}

// attempt authenticates the token of one request. It is used once.
type attempt struct {
	chain  *Chain
	passes bool

	method  Method
	forward func() string
}

// AuthenticateToken implements authenticator.Token. All its refusals and failures
// are faults, so that the authenticators above it add only what is wrong with a
// request.
func (a *attempt) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if reason := malformedToken(token); reason != "" {
		return nil, false, unauthenticated(errors.New(reason))
	}
	var stale error
	if a.passes {
		// What is in the files counts at once here: a token that was just added is
		// the hub's, and must not leave it.
		stale = a.chain.look()
	}
	response, err := a.ask(ctx, token)
	if err == nil && response == nil && a.passes {
		response, err = a.pass(ctx, token, stale)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, false, ended(ctx)
	case err != nil && fault.As(err) != nil:
		return nil, false, fault.As(err)
	case err != nil:
		return nil, false, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeInternal, Err: err}
	case response == nil:
		return nil, false, unauthenticated(errRefused)
	}
	return response, true, nil
}

// ask returns the response of the first backend that knows the token, nil where
// none does. The first error ends it: what comes after a backend that cannot
// judge must not be the one to refuse, and least of all to accept.
func (a *attempt) ask(ctx context.Context, token string) (*authenticator.Response, error) {
	for _, b := range a.chain.backends {
		response, ok, err := b.tokens.AuthenticateToken(ctx, token)
		if err != nil || ok {
			a.method = b.method
		}
		switch {
		case err != nil:
			return nil, err
		case !ok:
			continue
		case response == nil || response.User == nil:
			return nil, fmt.Errorf("%s accepted a token and named nobody", b.method)
		}
		if reason := refusedUser(response.User); reason != "" {
			return nil, unauthenticated(errors.New(reason))
		}
		return response, nil
	}
	return nil, nil
}
