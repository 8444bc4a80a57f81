package route

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// RequestPath returns the path of r as the client sent it, still escaped. It
// differs from r.URL.EscapedPath in bytes that are not valid in a URL but sent
// nevertheless, such as '|', which net/url would escape. An absolute request
// target (RFC 9112 section 3.2.2) loses its scheme and host. The query is
// r.URL.RawQuery and is held against the bytes that may stand in a request
// line. The error is a [*fault.Error] of the given hop.
func RequestPath(r *http.Request, hop wire.Hop) (string, error) {
	path, err := requestPath(r)
	if err != nil {
		return "", &fault.Error{Hop: hop, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	return path, nil
}

func requestPath(r *http.Request) (string, error) {
	uri := r.RequestURI
	if r.Method == http.MethodConnect {
		return "", errors.New("method: CONNECT is not served here, use a path /<cluster>/<api-path>")
	}
	if !strings.HasPrefix(uri, "/") {
		_, rest, ok := strings.Cut(uri, "://")
		if !ok {
			return "", fmt.Errorf("path: %s, want /<cluster>/<api-path>", quote(uri))
		}
		if i := strings.IndexAny(rest, "/?"); i < 0 {
			uri = "/"
		} else if uri = rest[i:]; uri[0] == '?' {
			uri = "/" + uri
		}
	}
	path, query, _ := strings.Cut(uri, "?")
	for i := range len(query) {
		// A space would end the request target on the next hop's request line.
		if query[i] <= ' ' || query[i] == 0x7f {
			return "", errors.New("query: raw space or control character, escape it as %20")
		}
	}
	return path, nil
}

// CheckPath reports whether path, still escaped, can be handed to a target
// without any target reading something else in it than was decided upon:
//
//   - it starts with '/', every '%' is followed by two hexadecimal digits, and
//     no raw space, control character or '#' stands in it;
//   - no segment is "." or "..", escaped or not. A segment ends at '/', but
//     also at '\', "%5c" and "%2f", since there are targets that decode these
//     before they clean the path, and what follows a ';' does not count, since
//     there are targets that drop path parameters first.
//
// Double escapes such as "%252e" are data. The error says what to change; it is
// not a [*fault.Error].
func CheckPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("path: %s does not start with '/'", quote(path))
	}
	var seg segment
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c <= ' ' || c == 0x7f || c == '#':
			return fmt.Errorf("path: raw %q in %s, escape it as %%%02X", c, quote(path), c)
		case c == '%':
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return fmt.Errorf("path: incomplete escape in %s, write a plain '%%' as %%25", quote(path))
			}
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		if seg.add(c) {
			return errDots(path)
		}
	}
	if seg.isDots() {
		return errDots(path)
	}
	return nil
}

func errDots(path string) error {
	return fmt.Errorf("path: '.' or '..' segment in %s, send the path it stands for", quote(path))
}

// segment watches the decoded bytes of a path for dot segments.
type segment struct {
	dots int
	// rest is set once the segment holds anything but dots, params once a ';'
	// ended what counts of it.
	rest, params bool
}

// add takes the next byte and reports whether it ended a dot segment.
func (s *segment) add(c byte) bool {
	switch {
	case c == '/' || c == '\\':
		dots := s.isDots()
		*s = segment{}
		return dots
	case s.params:
	case c == ';':
		s.params = true
	case c == '.':
		s.dots++
	default:
		s.rest = true
	}
	return false
}

func (s *segment) isDots() bool { return !s.rest && (s.dots == 1 || s.dots == 2) }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// unhex returns the value of a digit for which isHex holds.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
