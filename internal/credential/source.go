package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Source gets tokens. It is safe for concurrent use.
type Source interface {
	// Fetch gets a token. The error never has the token in it.
	Fetch(ctx context.Context) (Token, error)
	// Key names the source: tokens of two with the same key are the same. It is
	// empty for one that needs no cache.
	Key() string
}

// Error says that there is no credential: nobody is logged in, a login has expired, or
// its file or program gives none. It never has a token in it.
type Error struct{ Err error }

// Error says what is wrong.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Static is a token that is there, such as one of the environment.
type Static struct{ Value string }

// Key implements [Source]: it needs no cache.
func (Static) Key() string { return "" }

// String keeps the token out of texts.
func (Static) String() string { return "[redacted]" }

// Fetch implements [Source].
func (s Static) Fetch(context.Context) (Token, error) {
	token, err := ParseToken([]byte(s.Value), time.Now())
	if err != nil {
		return Token{}, &Error{fmt.Errorf("token: %w", err)}
	}
	return token, nil
}

// File is a file with a token and nothing else, read anew each time.
type File struct{ Path string }

// Key implements [Source]: a file needs no cache.
func (File) Key() string { return "" }

// Fetch implements [Source].
func (f File) Fetch(context.Context) (Token, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return Token{}, &Error{fmt.Errorf("file with the token: %w", err)}
	}
	text, err := io.ReadAll(io.LimitReader(file, maxToken+2))
	if err := errors.Join(err, file.Close()); err != nil {
		return Token{}, &Error{fmt.Errorf("file with the token: %w", err)}
	}
	token, err := ParseToken(text, time.Now())
	if err != nil {
		return Token{}, &Error{fmt.Errorf("file with the token: %s: %w", f.Path, err)}
	}
	return token, nil
}

// commandTime bounds how long a program may take to give a token, in which somebody
// may have to log in.
const commandTime = 2 * time.Minute

// Command is a line for the shell that prints a token and nothing else.
type Command struct {
	// Line is what the shell gets: sh -c, or cmd /C on Windows.
	Line string
	// Stderr gets what the program says beside the token; nil for nowhere.
	Stderr io.Writer
}

// Key implements [Source].
func (c Command) Key() string { return "command\x00" + c.Line }

// Fetch implements [Source].
func (c Command) Fetch(ctx context.Context) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	shell := []string{"sh", "-c", c.Line}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C", c.Line}
	}
	cmd := exec.CommandContext(ctx, shell[0], shell[1:]...) //nolint:gosec // running it is what its user asks for
	out := &bounded{most: maxToken + 2}
	cmd.Stdout, cmd.Stderr = out, c.Stderr
	cmd.WaitDelay = time.Second // a child of it may hold its output
	cmd.Env = append(os.Environ(), "CULVERT_CREDENTIAL=1")
	now := time.Now()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end within %v", commandTime)
		}
		return Token{}, &Error{fmt.Errorf("command for the token: %w", err)}
	}
	token, err := ParseToken(out.b.Bytes(), now)
	if err != nil {
		return Token{}, &Error{fmt.Errorf("command for the token: its output: %w", err)}
	}
	return token, nil
}

// bounded takes what a program prints up to a bound.
type bounded struct {
	b    bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.b.Len()+len(p) > b.most {
		return 0, errors.New("larger than 64 KiB")
	}
	return b.b.Write(p)
}
