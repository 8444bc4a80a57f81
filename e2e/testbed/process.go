package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long Stop waits after SIGTERM before it sends SIGKILL.
const stopGrace = 20 * time.Second

// ProcessConfig says how to run one server.
type ProcessConfig struct {
	// Name is used in errors and names the log file.
	Name string
	// Path is the binary, Args its arguments without the program's name.
	Path string
	Args []string
	// Env is added to the environment of the caller.
	Env []string
	// LogDir is an existing folder; output of every run is appended to
	// LogDir/Name.log.
	LogDir string
	// Namespace is the network the process runs in; nil is the caller's own.
	Namespace *Namespace
	// Unprivileged is for servers that refuse to run as root: they see an ordinary
	// user, and may use the files of the caller.
	Unprivileged bool
	// Ready is polled after each start until it returns nil. Nil means that the
	// process counts as ready as soon as it runs.
	Ready func(context.Context) error
}

// Process is a server of the test bed. It is the leader of a process group of
// its own, and the kernel kills it when the process that started it dies. Its
// methods are safe for concurrent use.
type Process struct {
	cfg ProcessConfig

	mu  sync.Mutex // held while the process is started or ended
	run *run       // the latest run
}

// run is one life of a process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was reaped
	err  error         // what Wait said; read only after done
}

// StartProcess starts the server and waits until it is ready or ctx ends. On an
// error the process is gone, and the error carries the end of its log.
func StartProcess(ctx context.Context, cfg ProcessConfig) (*Process, error) {
	p := &Process{cfg: cfg}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Start runs the process again after it has ended, and waits until it is ready.
// It is an error when the process is still running.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && !p.run.ended() {
		return fmt.Errorf("start %s: it is already running as process %d", p.cfg.Name, p.run.cmd.Process.Pid)
	}
	r, err := p.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.cfg.Name, err)
	}
	p.run = r
	if p.cfg.Ready == nil {
		return nil
	}
	// An exit must end the wait at once, not after the deadline.
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go cancelOnExit(waiting, r, cancel)
	if err := Poll(waiting, p.cfg.Name+" to be ready", p.cfg.Ready); err != nil {
		_ = r.signal(syscall.SIGKILL) // the error below is the one that matters
		<-r.done
		return fmt.Errorf("start %s: %w\n%s", p.cfg.Name, err, p.tail())
	}
	return nil
}

// errExited is the cause of a wait that ended because the process did.
var errExited = errors.New("the process exited")

// cancelOnExit ends a wait for readiness when the process ends; it returns when
// either has.
func cancelOnExit(ctx context.Context, r *run, cancel context.CancelCauseFunc) {
	select {
	case <-r.done:
		cancel(fmt.Errorf("%w: %w", errExited, r.err))
	case <-ctx.Done():
	}
}

func (p *Process) launch() (*run, error) {
	log, err := os.OpenFile(p.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(p.cfg.Path, p.cfg.Args...)
	cmd.Env = append(os.Environ(), p.cfg.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.cfg.Unprivileged {
		unprivileged(cmd.SysProcAttr)
	}
	if err := p.cfg.Namespace.Start(cmd); err != nil {
		return nil, err
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	go r.reap()
	return r, nil
}

// reap waits for the end of the process; it ends with it.
func (r *run) reap() {
	r.err = r.cmd.Wait()
	close(r.done)
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// signal sends s to the whole process group; a group that is gone is no error.
func (r *run) signal(s syscall.Signal) error {
	if r.ended() {
		return nil
	}
	if err := syscall.Kill(-r.cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// Stop asks the process to end with SIGTERM and waits for it. A process that is
// still there after twenty seconds, or when ctx ends, is killed and reported as an
// error. Stopping an ended process does nothing.
func (p *Process) Stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	if err := p.run.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.cfg.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	select {
	case <-p.run.done:
		return nil
	case <-ctx.Done():
		if err := p.kill(); err != nil {
			return err
		}
		return fmt.Errorf("stop %s: it did not end on SIGTERM and was killed: %w", p.cfg.Name, ctx.Err())
	}
}

// Kill9 ends the process with SIGKILL, as a crash would, and waits until it is
// gone. Killing an ended process does nothing.
func (p *Process) Kill9() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	return p.kill()
}

func (p *Process) kill() error {
	if err := p.run.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", p.cfg.Name, err)
	}
	<-p.run.done
	return nil
}

// Restart stops the process, if it runs, and starts it with the same arguments.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return p.Start(ctx)
}

// Done is closed when the current run has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run.done
}

// PID returns the process id of the current run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run.cmd.Process.Pid
}

// Log returns the path of the log file.
func (p *Process) Log() string { return filepath.Join(p.cfg.LogDir, p.cfg.Name+".log") }

// tail returns the end of the log for an error message.
func (p *Process) tail() string {
	const limit = 4 << 10
	f, err := os.Open(p.Log())
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return fmt.Sprintf("(its log cannot be read: %v)", err)
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	return fmt.Sprintf("the end of %s:\n%s", p.Log(), bytes.TrimSpace(text))
}
