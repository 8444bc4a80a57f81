package audit

import (
	"bytes"
	"strings"
)

// A mark is what credentials of one form begin with, in lower case. What follows
// it is the credential, as far as its characters go.
type mark struct {
	text string
	// least is how many characters have to follow: words are no credentials.
	least int
	// also are characters of the credential beside letters, digits and "-._~%".
	also string
	// keep leaves the mark itself in the text.
	keep bool
}

// marks are forms of credentials that can stray into a text: into an error that
// quotes its input, or into a path that somebody made of a token.
var marks = [...]mark{
	// A JSON Web Token begins with base64url of `{"`.
	{text: "eyj", least: 16},
	// RFC 6750 section 2.1 and RFC 7617.
	{text: "bearer ", least: 8, also: "+/=", keep: true},
	{text: "bearer%20", least: 8, keep: true},
	{text: "basic ", least: 8, also: "+/=", keep: true},
	// The subprotocol by which browsers send a token to an API server.
	{text: "bearer.authorization.k8s.io.", least: 1, keep: true},
	{text: "culvert-join.", least: 1, keep: true},
}

// A hint is a rare byte of a mark, and what stands before and after it in either
// case. They are in a line of JSON as they are in a text.
type hint struct {
	rare          byte
	before, after string
}

var hints = [...]hint{
	{'J', "ey", ""},
	{' ', "bearer", ""},
	{'%', "bearer", "20"},
	{' ', "basic", ""},
	{'z', "bearer.authori", "ation.k8s.io."},
	{'j', "culvert-", "oin."},
}

// mayHaveCredential reports whether any text of a finished line has to be looked
// at. It is the part of the search that every event pays for: looking for one
// byte is several times as fast as looking for a word.
func mayHaveCredential(l []byte) bool {
	for k := range hints {
		h := &hints[k]
		for i := 0; ; i++ {
			n := bytes.IndexByte(l[i:], h.rare)
			if n < 0 {
				break
			}
			i += n
			if i >= len(h.before) && foldEqual(l[i-len(h.before):i], h.before) &&
				len(l)-i > len(h.after) && foldEqual(l[i+1:i+1+len(h.after)], h.after) {
				return true
			}
		}
	}
	return false
}

// foldEqual compares with a text in lower case, whose letters match in either.
func foldEqual(b []byte, lower string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// canBegin reports a byte that a mark begins with.
func canBegin(c byte) bool {
	c |= 0x20
	return c == 'e' || c == 'b' || c == 'c'
}

// minSecret is the length of the shortest text that can have a credential.
const minSecret = len("culvert-join.") + 1

// redact replaces what has the form of a credential. Without one it returns s
// itself and allocates nothing.
func redact(s string) string {
	if len(s) < minSecret {
		return s
	}
	var out strings.Builder
	done := 0
	for i := 0; i < len(s); {
		if !canBegin(s[i]) {
			i++
			continue
		}
		from, to := credentialAt(s, i)
		if to == 0 {
			i++
			continue
		}
		out.WriteString(s[done:from])
		out.WriteString(Redacted)
		i, done = to, to
	}
	if done == 0 {
		return s
	}
	out.WriteString(s[done:])
	return out.String()
}

// credentialAt returns where the secret of a credential lies whose mark is at i,
// or 0, 0.
func credentialAt(s string, i int) (from, to int) {
	for k := range marks {
		m := &marks[k]
		if len(s)-i < len(m.text)+m.least || s[i]|0x20 != m.text[0] || !strings.EqualFold(s[i:i+len(m.text)], m.text) {
			continue
		}
		from = i + len(m.text)
		to = from
		for to < len(s) && m.has(s[to]) {
			to++
		}
		if to-from < m.least {
			continue
		}
		if !m.keep {
			from = i
		}
		return from, to
	}
	return 0, 0
}

// has reports a character of the credential.
func (m *mark) has(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	case c == '-', c == '.', c == '_', c == '~', c == '%':
		return true
	default:
		return strings.IndexByte(m.also, c) >= 0
	}
}
