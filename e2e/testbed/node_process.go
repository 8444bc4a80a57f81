package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"
)

// runtimeName is the scheme of container ids.
const runtimeName = "process"

// pause is what a container without a command runs.
var pause = []string{"sleep", "infinity"}

// container is a container of a pod: the process of its command, and those that the
// API server's callers run beside it.
type container struct {
	pod  *pod
	spec corev1.Container
	id   string
	dir  string
	log  *containerLog
	out  fanout // to callers that are attached

	// ready is closed when the command was started, or could not be; ended when it
	// has ended. The fields of each are written before.
	ready    chan struct{}
	stdin    io.WriteCloser // nil without
	terminal *os.File       // nil without
	started  metav1.Time
	ended    chan struct{}
	code     int32
	failure  string
	finished metav1.Time

	mu  sync.Mutex // held for signals, so that none meets another process
	pid int        // 0 when there is none
}

func newContainer(p *pod, spec corev1.Container) *container {
	return &container{
		pod: p, spec: spec, id: string(p.uid) + "-" + spec.Name, dir: filepath.Join(p.dir, spec.Name),
		log: &containerLog{changed: make(chan struct{})}, ready: make(chan struct{}), ended: make(chan struct{}),
	}
}

// start starts the command.
func (c *container) start() {
	c.started = metav1.Now()
	if err := errors.Join(os.Mkdir(c.dir, 0o700), c.log.create(c.dir+".log")); err != nil {
		c.fail(err)
		return
	}
	argv := append(append([]string{}, c.spec.Command...), c.spec.Args...)
	if len(argv) == 0 {
		argv = pause
	}
	cmd := c.command(context.Background(), argv)
	streams := streams{out: outputs{c, stdoutStream}, err: outputs{c, stderrStream}}
	if c.spec.Stdin && !c.spec.TTY {
		from, to := io.Pipe()
		streams.in, c.stdin = from, to
	}
	task, err := c.pod.node.startTask(cmd, streams, c.spec.TTY)
	if err != nil {
		c.fail(err)
		return
	}
	c.pid, c.terminal = cmd.Process.Pid, task.terminal
	close(c.ready)
	c.pod.node.running.Go(func() { c.reap(task) })
}

// fail is the end of a container that could not be started.
func (c *container) fail(err error) {
	c.failure = err.Error()
	close(c.ready)
	c.finish(128) // what container runtimes report for it
}

// reap waits for the end of the command.
func (c *container) reap(t *task) {
	t.awaitExit()
	c.mu.Lock()
	err := t.wait()
	c.pid = 0
	c.mu.Unlock()
	if c.stdin != nil {
		_ = c.stdin.Close() // a pipe of this process
	}
	c.finish(int32(exitCode(err))) // a byte
}

func (c *container) finish(code int32) {
	c.code, c.finished = code, metav1.Now()
	c.log.end()
	close(c.ended)
	c.pod.exits <- struct{}{}
}

// signal sends s to all processes of the command.
func (c *container) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid > 0 {
		_ = syscall.Kill(-c.pid, s) // it may end at the same time
	}
}

// command is a command in the container's folder and environment.
func (c *container) command(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = cmp.Or(c.spec.WorkingDir, c.dir)
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "HOSTNAME="+c.pod.key.Name, "TERM=xterm")
	for _, e := range c.spec.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	return cmd
}

// streams are those of a process; nil ones are not there.
type streams struct {
	in       io.Reader
	out, err io.Writer
	resize   <-chan remotecommand.TerminalSize
	// hangUp ends a process with a terminal when in does.
	hangUp bool
}

// task is a process of a container. It leads a process group of its own, and the
// kernel kills it when the node's process dies.
type task struct {
	cmd      *exec.Cmd
	terminal *os.File
	copied   chan struct{} // closed when all that came of the terminal is with the caller
}

// startTask starts cmd in the cluster's network, with a terminal if tty is true. The
// caller calls awaitExit and then wait.
func (n *Node) startTask(cmd *exec.Cmd, s streams, tty bool) (*task, error) {
	t := &task{cmd: cmd}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if tty {
		return t, t.startWithTerminal(n.cluster.Namespace, s)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.out != nil {
		cmd.Stdout = s.out
	}
	if s.err != nil {
		cmd.Stderr = s.err
	}
	if s.in == nil {
		return t, n.cluster.Namespace.Start(cmd)
	}
	// Without Stdin of its own kind Wait does not wait for a caller that stays.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return t, err
	}
	if err := n.cluster.Namespace.Start(cmd); err != nil {
		return t, err
	}
	go feed(stdin, s.in)
	return t, nil
}

func (t *task) startWithTerminal(ns *Namespace, s streams) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer slave.Close() // the child has its own descriptor
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := ns.Start(t.cmd); err != nil {
		return errors.Join(err, master.Close())
	}
	t.terminal, t.copied = master, make(chan struct{})
	go t.show(s.out)
	if s.in != nil {
		go t.typeIn(s.in, s.hangUp)
	}
	if s.resize != nil {
		go resize(master, s.resize)
	}
	return nil
}

// show ends with the terminal, which is hung up when its session's leader ends, or
// with a caller that does not read.
func (t *task) show(to io.Writer) {
	defer close(t.copied)
	if _, err := io.Copy(to, t.terminal); err != nil && !errors.Is(err, syscall.EIO) {
		_ = t.terminal.Close() // as a closed window does, it ends what runs there
	}
}

// typeIn ends with the caller's stream, which ends at the latest with the session.
func (t *task) typeIn(from io.Reader, hangUp bool) {
	_, _ = io.Copy(t.terminal, from) // the process may end before its caller
	if hangUp {
		_ = t.terminal.Close() // or wait has closed it
	}
}

// resize ends with the channel.
func resize(terminal *os.File, sizes <-chan remotecommand.TerminalSize) {
	for size := range sizes {
		_ = resizeTerminal(terminal, size.Height, size.Width) // or it is closed
	}
}

// feed ends with the caller's stream, which ends at the latest with the session.
func feed(to io.WriteCloser, from io.Reader) {
	_, _ = io.Copy(to, from) // a process may end before its caller
	_ = to.Close()           // it is gone by then, mostly
}

// awaitExit waits until the process has ended, and leaves it to wait: so long its
// number is nobody else's.
func (t *task) awaitExit() {
	for {
		err := unix.Waitid(unix.P_PID, t.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// wait ends what the process left behind, and returns when all its output is with
// the caller. Its error is that of exec.Cmd.Wait.
func (t *task) wait() error {
	_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL) // mostly there is nothing
	if t.terminal == nil {
		return t.cmd.Wait()
	}
	<-t.copied
	err := t.cmd.Wait()
	_ = t.terminal.Close() // or the caller's end has closed it
	return err
}

// exitCode is what a shell calls the end of a process.
func exitCode(err error) int {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0 // its output had nobody to go to
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// The streams of a container, as its log names them.
const (
	stdoutStream = "stdout"
	stderrStream = "stderr"
)

// outputs takes a stream of the container's command.
type outputs struct {
	c      *container
	stream string
}

// Write implements io.Writer.
func (o outputs) Write(p []byte) (int, error) {
	if err := o.c.log.append(o.stream, p); err != nil {
		return 0, fmt.Errorf("log of container %s: %w", o.c.id, err)
	}
	o.c.out.write(o.stream, p)
	return len(p), nil
}

// fanout hands output to the callers that are attached. A caller that does not
// read stops the container, as with other runtimes.
type fanout struct {
	mu  sync.Mutex
	all map[*listener]struct{}
}

// listener is an attached caller. Its writers may be nil.
type listener struct {
	stdout, stderr io.Writer
	lost           chan struct{} // closed when it cannot be written to
}

func (f *fanout) add(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[*listener]struct{}{}
	}
	f.all[l] = struct{}{}
}

func (f *fanout) remove(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, l)
}

func (f *fanout) write(stream string, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.all {
		to := l.stdout
		if stream == stderrStream {
			to = l.stderr
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(p); err != nil {
			delete(f.all, l)
			close(l.lost)
		}
	}
}
