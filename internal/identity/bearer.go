package identity

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	// bearerProtocol begins the WebSocket subprotocol that carries a token for
	// clients which cannot set headers (k8s.io/apiserver, request/websocket).
	bearerProtocol = "base64url.bearer.authorization.k8s.io."

	headerAuthorization = "Authorization"
	headerSubprotocol   = "Sec-Websocket-Protocol"
	// foldedCredential is Culvert-Authorization as fold leaves it.
	foldedCredential = "culvert-authorization"

	// maxToken bounds what is hashed and sent to a backend, in bytes. A token
	// with hundreds of group claims stays well below.
	maxToken = 32 << 10
)

// checkCredential returns why r carries not exactly one well-formed bearer
// credential, or nil. The authenticators of k8s.io/apiserver take the first of
// several headers and ignore what they do not understand; here the caller is
// told. No part of a credential gets into the error.
func checkCredential(r *http.Request) error {
	values := headerValues(r.Header, headerAuthorization)
	subprotocols := 0
	if wsstream.IsWebSocketRequest(r) {
		subprotocols = countBearerProtocols(r.Header)
	}
	switch {
	case len(values) == 0 && subprotocols == 0:
		return errors.New("the request has no credential: send Authorization: Bearer <token>")
	case len(values) > 1:
		return fmt.Errorf("the request has %d Authorization headers: send one", len(values))
	case len(values) == 1 && subprotocols > 0:
		return errors.New("the request has a token in Authorization and another as a WebSocket subprotocol: send one")
	case len(values) == 0:
		return nil
	}
	scheme, token, found := strings.Cut(strings.Trim(values[0], " \t"), " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		// The scheme is not repeated: where it is missing, this is the token.
		return errors.New("the Authorization header is not of the Bearer scheme: send Authorization: Bearer <token>")
	case !found:
		return errors.New("the Authorization header has no token after Bearer")
	}
	if reason := malformedToken(token); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// hasToken says whether r carries anything that stands for a token, well formed
// or not.
func hasToken(r *http.Request) bool {
	return len(headerValues(r.Header, headerAuthorization)) > 0 ||
		wsstream.IsWebSocketRequest(r) && countBearerProtocols(r.Header) > 0
}

// headerValues returns the values of name in any letter case, for header maps
// that were not filled by net/http.
func headerValues(h http.Header, name string) []string {
	var values []string
	for key, vs := range h {
		if strings.EqualFold(key, name) {
			values = append(values, vs...)
		}
	}
	return values
}

// hasField says whether h has a field in any spelling that folds to folded.
func hasField(h http.Header, folded string) bool {
	for name := range h {
		if fold(name) == folded {
			return true
		}
	}
	return false
}

func countBearerProtocols(h http.Header) int {
	n := 0
	for _, value := range h.Values(headerSubprotocol) {
		for protocol := range strings.SplitSeq(value, ",") {
			if isBearerProtocol(protocol) {
				n++
			}
		}
	}
	return n
}

func isBearerProtocol(protocol string) bool {
	protocol = strings.TrimSpace(protocol)
	return len(protocol) >= len(bearerProtocol) && strings.EqualFold(protocol[:len(bearerProtocol)], bearerProtocol)
}

// malformedToken returns why no backend is asked about token, or "".
func malformedToken(token string) string {
	if len(token) > maxToken {
		return fmt.Sprintf("the token is longer than %d bytes", maxToken)
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return "the token has a space, a control character or a byte outside of ASCII"
		}
	}
	return ""
}

// refusedUser returns why nobody may be the user that a backend named, or "".
// A backend that takes strangers in answers with these names.
func refusedUser(u user.Info) string {
	if u.GetName() == "" {
		return "the user has no name"
	}
	if u.GetName() == user.Anonymous {
		return "the user is " + user.Anonymous + ", which is nobody"
	}
	if u.GetName() == PassThroughUser || slices.Contains(u.GetGroups(), PassThroughUser) {
		return "the user or a group is " + PassThroughUser + ", which stands for whoever a managed cluster lets in"
	}
	if slices.Contains(u.GetGroups(), user.AllUnauthenticated) {
		return "the user is in the group " + user.AllUnauthenticated + ", which is of nobody"
	}
	return ""
}
