package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Terminal is kubectl in a terminal, as a user has it: its input and output are a
// pseudo terminal whose size can change. Its methods are safe for concurrent use.
type Terminal struct {
	cmd    *exec.Cmd
	master *os.File
	stderr bytes.Buffer  // read after done
	done   chan struct{} // closed when all output was read and the process is reaped
	err    error         // what Wait said; read after done

	mu      sync.Mutex
	shown   string        // what Await has not found yet
	changed chan struct{} // closed and made anew when shown grows
}

// Terminal starts kubectl in a terminal of a size, with env added to its
// environment. It ends with ctx. The caller calls Wait.
func (k Kubectl) Terminal(ctx context.Context, rows, columns uint16, env []string, args ...string) (*Terminal, error) {
	t := &Terminal{cmd: k.Command(ctx, args...), done: make(chan struct{}), changed: make(chan struct{})}
	t.cmd.Env = append(t.cmd.Env, env...)
	master, slave, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	defer slave.Close() // the child has its own descriptor
	t.master = master
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, &t.stderr
	t.cmd.SysProcAttr.Setsid, t.cmd.SysProcAttr.Setctty = true, true
	if err := errors.Join(t.Resize(rows, columns), k.Namespace.Start(t.cmd)); err != nil {
		return nil, fmt.Errorf("terminal: %w", errors.Join(err, master.Close()))
	}
	go t.read()
	return t, nil
}

// read ends when nobody has the terminal open any more.
func (t *Terminal) read() {
	buf := make([]byte, 4<<10)
	for {
		n, err := t.master.Read(buf)
		t.mu.Lock()
		t.shown += string(buf[:n])
		close(t.changed)
		t.changed = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			break
		}
	}
	t.err = errors.Join(t.cmd.Wait(), t.master.Close())
	close(t.done)
}

// Type types text; a line ends with "\r", as that of the Enter key.
func (t *Terminal) Type(text string) error {
	_, err := io.WriteString(t.master, text)
	return err
}

// Resize changes the size of the window; kubectl gets SIGWINCH.
func (t *Terminal) Resize(rows, columns uint16) error {
	return resizeTerminal(t.master, rows, columns)
}

// Await waits until text is shown, after what an earlier call has found.
func (t *Terminal) Await(ctx context.Context, text string) error {
	for {
		t.mu.Lock()
		shown, changed := t.shown, t.changed
		_, after, ok := strings.Cut(shown, text)
		if ok {
			t.shown = after
		}
		t.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-t.done:
			return fmt.Errorf("terminal: kubectl ended without %q, with %q: %w: %s", text, shown, t.err, t.stderr.String())
		case <-ctx.Done():
			return fmt.Errorf("terminal: wait for %q after %q: %w", text, shown, context.Cause(ctx))
		}
	}
}

// Wait waits until kubectl has ended, and returns what it wrote to standard error.
func (t *Terminal) Wait(ctx context.Context) (stderr string, err error) {
	select {
	case <-t.done:
		return t.stderr.String(), t.err
	case <-ctx.Done():
		_ = t.cmd.Process.Signal(syscall.SIGKILL) // it may end at the same time
		<-t.done
		return t.stderr.String(), fmt.Errorf("terminal: wait for the end: %w", context.Cause(ctx))
	}
}

// AwaitSize asks the shell in the terminal for its size until that is the one that
// is wanted: a change travels beside what is typed.
func (t *Terminal) AwaitSize(ctx context.Context, rows, columns uint16) error {
	want := fmt.Sprintf("size is %d %d", rows, columns)
	return Poll(ctx, "a terminal of "+want, func(ctx context.Context) error {
		// What is typed is shown too, and must not be taken for the answer.
		if err := t.Type("echo size 'is' $(stty size)\r"); err != nil {
			return err
		}
		if err := t.Await(ctx, "size is "); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if !strings.HasPrefix("size is "+t.shown, want) {
			return fmt.Errorf("it is %q", t.shown)
		}
		return nil
	})
}
