package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/term"
)

// isTerminal tells whether somebody looks at w, or types into it.
func isTerminal(w any) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// readFunc is a function as an [io.Reader].
type readFunc func(p []byte) (int, error)

// Read calls f.
func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// interruptible is r, whose Read ends with ctx too: one of a terminal ends by nothing else,
// and Ctrl-C has to. The goroutine of a Read that nobody waits for ends with it.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		done := make(chan piece, 1)
		go readPiece(r, len(p), done)
		select {
		case got := <-done:
			return copy(p, got.bytes), got.err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
}

// piece is what one Read gave.
type piece struct {
	bytes []byte
	err   error
}

func readPiece(r io.Reader, most int, done chan<- piece) {
	own := make([]byte, most)
	n, err := r.Read(own)
	done <- piece{own[:n], err}
}

// readPassword reads a line that the terminal does not show, until ctx ends.
func readPassword(ctx context.Context, terminal *os.File) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	done := make(chan piece, 1)
	go readLine(fd, done)
	select {
	case got := <-done:
		return got.bytes, got.err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

func readLine(fd int, done chan<- piece) {
	line, err := term.ReadPassword(fd)
	done <- piece{line, err}
}
