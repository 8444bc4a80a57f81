package audit

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Redacted stands where a text had a credential.
const Redacted = "[redacted]"

// cut is at the end of a text that was longer than its field allows.
const cut = "…"

// isPlain reports a byte that stands in a JSON string as it is.
func isPlain(c byte) bool { return ' ' <= c && c < 0x7f && c != '"' && c != '\\' }

// Eight bytes at a time: each constant has the same byte in all eight.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// plainUntil returns the index of the first byte of s, from i on, that is not
// plain, or the length of s.
func plainUntil(s string, i int) int {
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		quote, slash, del := x^'"'*ones, x^'\\'*ones, x^0x7f*ones
		// y - ones has the high bit of each byte of y that is 0, and of some that
		// come after one or have that bit themselves: the loop below looks closer.
		if (x|(x-' '*ones)|(quote-ones)|(slash-ones)|(del-ones))&highs != 0 {
			break
		}
	}
	for i < len(s) && isPlain(s[i]) {
		i++
	}
	return i
}

const hex = "0123456789abcdef"

// text appends s as a JSON string that takes at most limit bytes and the
// few of its quotes and the mark of a cut. Everything that is not a printable
// character of Unicode is escaped: line breaks of any kind, controls of terminals
// and of text direction. Bytes that are not UTF-8 become U+FFFD.
func (l *line) text(s string, limit int) {
	// What is cut off anyway is not looked at.
	tail := `"`
	if len(s) > 2*limit {
		s, tail = s[:2*limit], cut+`"`
	}
	if l.redact {
		s = redact(s)
	}
	l.out = append(l.out, '"')
	dst := l.out
	end := len(dst) + limit
	for start := 0; ; {
		i := plainUntil(s, start)
		if room := end - len(dst); i-start > room {
			dst = append(append(dst, s[start:start+room]...), cut+`"`...)
			break
		}
		dst = append(dst, s[start:i]...)
		if i == len(s) {
			dst = append(dst, tail...)
			break
		}
		before := len(dst)
		r, size := utf8.DecodeRuneInString(s[i:])
		dst = appendRune(dst, r)
		if len(dst) > end {
			dst = append(dst[:before], cut+`"`...)
			break
		}
		start = i + size
	}
	l.out = dst
}

// appendRune appends a rune that is not plain.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x10000 && !unicode.IsPrint(r):
		r -= 0x10000
		return appendUnit(appendUnit(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	case r == utf8.RuneError || !unicode.IsPrint(r):
		return appendUnit(dst, r)
	default:
		return utf8.AppendRune(dst, r)
	}
}

func appendUnit(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// withoutQuery returns the path alone: a query may have tokens.
func withoutQuery(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return path[:i]
	}
	return path
}
