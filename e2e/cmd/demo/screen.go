package main

import (
	"fmt"
	"io"
	"strings"
)

// shownLines is how much of an answer is printed; a list of pods as JSON has
// hundreds of lines.
const shownLines = 14

// screen prints the demo as a transcript: headings, commands, answers.
type screen struct {
	out io.Writer
}

// heading starts a step.
func (s screen) heading(text string) { fmt.Fprintf(s.out, "\n# %s\n", text) }

// note prints a line in between.
func (s screen) note(text string) { fmt.Fprintf(s.out, "\n%s\n", text) }

// command prints what runs, as one would type it.
func (s screen) command(text string) {
	for i, line := range strings.Split(text, "\n") {
		prompt := "$ "
		if i > 0 {
			prompt = "> "
		}
		fmt.Fprintln(s.out, prompt+line)
	}
}

// answer prints the beginning of an answer and always its last line, which holds
// the HTTP status of a curl.
func (s screen) answer(text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		switch hidden := len(lines) - shownLines; {
		case i < shownLines-1 || i == len(lines)-1:
			fmt.Fprintln(s.out, "  "+line)
		case i == shownLines-1:
			fmt.Fprintf(s.out, "  … %d more lines\n", hidden)
		}
	}
}
