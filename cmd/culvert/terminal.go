package main

import (
	"os"

	"golang.org/x/term"
)

// isTerminal tells whether somebody looks at w, or types into it.
func isTerminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
