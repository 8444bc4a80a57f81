package identity

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Strip removes from h every field by which a client could bring a credential or
// a claim of identity to a managed cluster, and every mention of such a field:
//
//   - Authorization, Proxy-Authorization, Culvert-Authorization
//   - Impersonate-*, X-Remote-* (the API server's front-proxy fields)
//   - Forwarded and X-Forwarded-*, so call it before setting one's own
//   - a bearer token among the subprotocols in Sec-WebSocket-Protocol
//   - the names of all these in Connection, which would have a proxy further on
//     remove what the hub sets, and in Trailer
//   - fields whose name is not a token of RFC 9110
//
// Names are compared without regard to case and with "_" and any other mark as
// "-", since servers behind a gateway interface (CGI, WSGI) cannot tell them apart.
// Everything else stays as it was. h may be nil.
func Strip(h http.Header) {
	for name, values := range h {
		folded := fold(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name) || claimsIdentity(folded):
			delete(h, name)
		case folded == "connection" || folded == "trailer":
			keepListed(h, name, values, namesHarmless)
		case folded == "sec-websocket-protocol":
			keepListed(h, name, values, protocolHarmless)
		}
	}
}

// StripTrailer removes from t, a request's Trailer, what [Strip] removes from a
// header. A trailer's values arrive after the body, and HTTP/1.1 adds fields then
// that were not announced: a front end that forwards trailers calls this before
// it announces them, and again on what it is about to send. t may be nil.
func StripTrailer(t http.Header) {
	for name := range t {
		if !httpguts.ValidHeaderFieldName(name) || claimsIdentity(fold(name)) {
			delete(t, name)
		}
	}
}

func claimsIdentity(folded string) bool {
	switch strings.TrimRight(folded, "-") {
	case "authorization", "proxy-authorization", "culvert-authorization", "forwarded":
		return true
	}
	return isImpersonate(folded) || strings.HasPrefix(folded, "x-remote-") || strings.HasPrefix(folded, "x-forwarded-")
}

func isImpersonate(folded string) bool { return strings.HasPrefix(folded, "impersonate-") }

func namesHarmless(name string) bool { return !claimsIdentity(fold(name)) }

func protocolHarmless(protocol string) bool { return !isBearerProtocol(protocol) }

// keepListed leaves only the harmless members of a comma-separated list. A field
// whose members are all harmless keeps its exact bytes; one with none is removed.
func keepListed(h http.Header, name string, values []string, harmless func(string) bool) {
	var kept []string
	for _, value := range values {
		var members []string
		changed := false
		for member := range strings.SplitSeq(value, ",") {
			if harmless(member) {
				members = append(members, member)
			} else {
				changed = true
			}
		}
		switch {
		case !changed:
			kept = append(kept, value)
		case len(members) > 0:
			kept = append(kept, strings.TrimSpace(strings.Join(members, ",")))
		}
	}
	if len(kept) == 0 {
		delete(h, name)
		return
	}
	h[name] = kept
}

// fold returns the form of a field name that all its spellings share: lower case,
// every byte that is neither letter nor digit as "-", and none of those before it.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		default:
			b[i] = '-'
		}
	}
	return strings.TrimLeft(string(b), "-")
}
