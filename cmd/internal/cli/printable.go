package cli

import (
	"strings"
	"unicode"
)

// Printable keeps what others say, such as a hub, an agent or a target, from being read by
// a terminal: whatever is no character with a place in a line becomes '?', among it
// escapes, the ends of lines, and what turns the direction of writing.
func Printable(text string) string { return strings.Map(shown, text) }

// printableLines is Printable for a text of several lines.
func printableLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return shown(r)
	}, text)
}

func shown(r rune) rune {
	if unicode.IsPrint(r) { // of the spaces ' ' alone
		return r
	}
	return '?'
}
