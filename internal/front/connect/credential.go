package connect

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/wire"
)

// MethodAnonymous is of a client without a credential.
const MethodAnonymous = identity.Method("anonymous")

const headerProxyAuthorization = "Proxy-Authorization"

// challenges are what 407 asks for. Basic is first, since browsers take the first
// that they know and some stop at one that they do not.
var challenges = []string{`Basic realm="culvert", charset="UTF-8"`, "Bearer"}

// authenticate finds out who asks. The credential is taken from the request, so
// that nothing later sees it.
func (h *Handler) authenticate(r *http.Request) (identity.Caller, error) {
	values := r.Header.Values(headerProxyAuthorization)
	r.Header.Del(headerProxyAuthorization)
	// Nothing but the proxy's own credential and the certificate counts. Authorization
	// would be a mistake of the client, and is for nobody here.
	ask := r.Clone(r.Context())
	ask.Header = http.Header{}
	switch {
	case len(values) > 1:
		return identity.Caller{}, unauthenticated(errors.New("the request has several Proxy-Authorization fields: send one"))
	case len(values) == 1:
		bearer, err := bearerOf(values[0])
		if err != nil {
			return identity.Caller{}, unauthenticated(err)
		}
		ask.Header.Set("Authorization", bearer)
	case h.cfg.Anonymous && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0):
		return identity.Caller{
			User:   &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}},
			Method: MethodAnonymous,
		}, nil
	}
	caller, err := h.cfg.Identify(ask, "")
	if f := fault.As(err); f != nil && f.Code == wire.CodeUnauthenticated && len(values) == 0 {
		err = unauthenticated(errors.New("the request has no credential: send Proxy-Authorization, Bearer with a token, or Basic with the token as the password"))
	}
	return caller, err
}

func unauthenticated(err error) *fault.Error {
	return &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated, Err: err}
}

// bearerOf returns the credential as an Authorization of the Bearer scheme. Basic
// is how proxies are used that are given as https://user:password@proxy, which is
// all that browsers, SPICE clients and kubectl can do: the password is the token.
// The user name counts for nothing, since the token says who it is; clients that
// insist on one may send any. No part of a credential gets into the error.
func bearerOf(value string) (string, error) {
	scheme, rest, _ := strings.Cut(strings.Trim(value, " \t"), " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return "Bearer " + strings.TrimLeft(rest, " "), nil
	case !strings.EqualFold(scheme, "Basic"):
		return "", errors.New("the Proxy-Authorization field is of neither the Bearer nor the Basic scheme")
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimLeft(rest, " "))
	if err != nil {
		return "", errors.New("the Basic credential is not base64")
	}
	_, token, colon := strings.Cut(string(decoded), ":")
	if !colon || token == "" {
		return "", errors.New("the Basic credential has no password, which is where the token belongs: https://any:<token>@hub")
	}
	return "Bearer " + token, nil
}
