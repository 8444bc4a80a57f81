package answer

import (
	"context"
	"crypto/rand"
	"net/http"
)

// HeaderRequestID carries the id of a request on all hops, and back on answers
// that are Culvert's own.
const HeaderRequestID = "X-Request-Id"

// maxRequestID bounds an id that a client may choose, in bytes.
const maxRequestID = 128

type requestIDKey struct{}

// WithRequestID returns a request whose context carries its id, and which has it
// as its only [HeaderRequestID]: the client's own where it sent exactly one that
// is well formed, else a new random one. r itself keeps its context; its header
// is changed.
//
// A well-formed id has 1 to 128 letters, digits and "._:=+/@-", so that it can
// stand in headers, logs and shell commands as it is.
func WithRequestID(r *http.Request) *http.Request {
	id := r.Header.Get(HeaderRequestID)
	if len(r.Header.Values(HeaderRequestID)) != 1 || !wellFormed(id) {
		id = rand.Text()
	}
	r.Header.Set(HeaderRequestID, id)
	return r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
}

// WithID returns ctx if it carries an id, and otherwise one that carries a new
// random one, for what is no HTTP request.
func WithID(ctx context.Context) context.Context {
	if RequestID(ctx) != "" {
		return ctx
	}
	return context.WithValue(ctx, requestIDKey{}, rand.Text())
}

// RequestID returns the id that WithRequestID or WithID put into the context, or "". It
// is safe for concurrent use.
func RequestID(ctx context.Context) string {
	id, ok := ctx.Value(requestIDKey{}).(string)
	if !ok {
		return ""
	}
	return id
}

func wellFormed(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '=', c == '+', c == '/', c == '@', c == '-':
		default:
			return false
		}
	}
	return true
}
