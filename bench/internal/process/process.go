package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopGrace is how long a child may take to end once it is told to, also on a machine that
// stands still for a moment: one that is killed has not written what it had to.
const stopGrace = 15 * time.Second

// Spec says what to run.
type Spec struct {
	// Name is for errors and names the log file.
	Name string
	// Role of this executable; Config is its configuration, and Ready a pointer to
	// what it answers.
	Role          string
	Config, Ready any
	// Command runs another program instead of a role: it counts as ready at once.
	Command []string
	// Dir is an existing folder, where the log file goes.
	Dir string
	// Within is put before the command line, for example to enter a namespace. It
	// must end in replacing itself by the command.
	Within []string
}

// Process is a running child. Its methods are safe for concurrent use, but for
// Stop and Profile.
type Process struct {
	name    string
	foreign bool // another program, not a role
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	log     string
	done    chan struct{} // closed when the child was reaped
	err     error         // what Wait said; read only after done
}

// Start runs spec and waits until the child is ready or ctx ends. On an error the
// child is gone, and the error carries the end of its log.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	p := &Process{name: spec.Name, foreign: spec.Command != nil, log: filepath.Join(spec.Dir, spec.Name+".log"), done: make(chan struct{})}
	answer, err := p.launch(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if spec.Command == nil {
		err = p.handshake(ctx, spec, answer)
	}
	err = errors.Join(err, answer.Close())
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w\n%s", spec.Name, err, p.Tail())
	}
	return p, nil
}

func (p *Process) launch(spec Spec) (answer *os.File, err error) {
	args := spec.Command
	if args == nil {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("own executable: %w", err)
		}
		args = []string{self}
	}
	args = append(append([]string{}, spec.Within...), args...)
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }() // the child has its own descriptor
	answer, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	p.cmd = exec.Command(args[0], args[1:]...) //nolint:gosec // which program runs is the caller's decision
	p.cmd.Env = os.Environ()
	p.cmd.Stdout, p.cmd.Stderr = out, log
	if spec.Command == nil {
		p.cmd.Env = append(p.cmd.Env, variable+"="+spec.Role)
	} else {
		p.cmd.Stdout = log
	}
	// A group of its own: an interrupt at the terminal is the parent's to handle.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("standard input: %w", err), answer.Close(), out.Close())
	}
	if err := errors.Join(p.cmd.Start(), out.Close()); err != nil {
		return nil, errors.Join(err, answer.Close())
	}
	go p.reap()
	return answer, nil
}

// reap waits for the end of the child; it ends with it.
func (p *Process) reap() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// handshake gives the configuration and reads the answer.
func (p *Process) handshake(ctx context.Context, spec Spec, answer *os.File) error {
	text, err := json.Marshal(spec.Config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if _, err := p.stdin.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("send configuration: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Now()) }) // fails on a closed pipe only
	defer stop()
	line, err := bufio.NewReader(answer).ReadBytes('\n')
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it was not ready in time: %w", context.Cause(ctx))
	case errors.Is(err, io.EOF):
		return errors.New("it ended before it was ready")
	case err != nil:
		return fmt.Errorf("read its answer: %w", err)
	}
	if spec.Ready == nil {
		return nil
	}
	if err := json.Unmarshal(line, spec.Ready); err != nil {
		return fmt.Errorf("its answer: %w", err)
	}
	return nil
}

// Name returns the name that it was started with.
func (p *Process) Name() string { return p.name }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Profile begins a CPU profile of a role into the file path, which must not hold
// a line break; an empty path ends it.
func (p *Process) Profile(path string) error {
	if _, err := io.WriteString(p.stdin, path+"\n"); err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	return nil
}

// Stop ends the child and waits until it is gone: a role by the end of its
// standard input, another program by SIGTERM, and both by SIGKILL when they take
// too long. A child that had ended by itself before, and a role that ends with an
// error, are reported.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself: %w\n%s", p.name, errors.Join(errors.New("unexpected end"), p.err), p.Tail())
	default:
	}
	_ = p.stdin.Close() // ends a role; it may be closed when the child dies just now
	if p.foreign {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		p.kill()
		return nil
	}
	if p.err != nil && !p.foreign {
		return fmt.Errorf("%s ended with %w\n%s", p.name, p.err, p.Tail())
	}
	return nil
}

// kill ends the group of the child and waits for the child.
func (p *Process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may be gone
	<-p.done
}

// Tail returns the end of the log for an error message.
func (p *Process) Tail() string {
	const limit = 4 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return "(its log cannot be read: " + err.Error() + ")"
	}
	return fmt.Sprintf("the end of the log of %s:\n%s", p.name, bytes.TrimSpace(text[max(0, len(text)-limit):]))
}
