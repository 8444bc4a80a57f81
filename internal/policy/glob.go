package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxText is the length of a text in a policy, in bytes.
	maxText = 512
	// maxStars is how many "*" a glob may have.
	maxStars = 8
)

// glob is a pattern in which "*" stands for any characters, also none, also "/",
// "." and ":". Everything else stands for itself; case counts. It takes time in
// proportion to the text, whatever the pattern.
type glob struct {
	text string
	// parts are what is between the stars: one for a pattern without, which then
	// is the whole text.
	parts []string
}

func newGlob(text string) (glob, error) {
	if err := checkText(text); err != nil {
		return glob{}, err
	}
	if n := strings.Count(text, "*"); n > maxStars {
		return glob{}, fmt.Errorf("%d \"*\" in one pattern, at most %d are allowed", n, maxStars)
	}
	return glob{text: text, parts: strings.Split(text, "*")}, nil
}

// checkText holds a text against what can stand in a name or path.
func checkText(text string) error {
	switch {
	case text == "":
		return errors.New("empty, leave it out or give a value")
	case len(text) > maxText:
		return fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxText)
	case !utf8.ValidString(text):
		return errors.New("not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("has a control character")
	default:
		return nil
	}
}

// exact tells a pattern without stars.
func (g glob) exact() bool { return len(g.parts) == 1 }

// all tells the pattern that everything matches.
func (g glob) all() bool { return g.text == "*" }

func (g glob) match(s string) bool {
	first, last := g.parts[0], g.parts[len(g.parts)-1]
	if len(g.parts) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	// The leftmost place for each part leaves the most for those that follow.
	for _, part := range g.parts[1 : len(g.parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

func matchAny(globs []glob, s string) bool {
	for i := range globs {
		if globs[i].match(s) {
			return true
		}
	}
	return false
}
