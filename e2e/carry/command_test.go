package carry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// flags are those of ada at the hub, as a hub's address and a file with a token.
func flags(hub, token string) []string {
	return []string{"--hub", "https://" + hub, "--hub-ca", hubCA(), "--token-file", file(token)}
}

// command is culvert as ada; args begin with the command's name.
func command(ctx context.Context, args ...string) *exec.Cmd {
	return commandAs(ctx, flags(hubAddress(), "ada.token"), args...)
}

func commandAs(ctx context.Context, flags []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, bin("culvert"), slices.Concat(args[:1], flags, args[1:])...)
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// running is a culvert that goes on until the test ends it.
type running struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done

	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

// Write implements io.Writer for what the command prints.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	return r.text.Write(p)
}

func (r *running) printed() (text string, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String(), r.changed
}

// start runs culvert as ada until the end of the test.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{cmd: command(context.Background(), args...), done: make(chan struct{}), changed: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, r.cmd.Start())
	go r.reap()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// reap ends with the command.
func (r *running) reap() {
	r.err = r.cmd.Wait()
	close(r.done)
}

// stop ends the command as Ctrl-C does, and wants it to succeed.
func (r *running) stop(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
	default:
		if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Errorf("end %v: %v", r.cmd.Args, err)
		}
		select {
		case <-r.done:
		case <-time.After(30 * time.Second):
			t.Errorf("%v does not end", r.cmd.Args)
			_ = r.cmd.Process.Kill() // the error was reported
			<-r.done
		}
	}
	if text, _ := r.printed(); r.err != nil {
		t.Errorf("%v: %v\n%s", r.cmd.Args, r.err, text)
	}
}

// await returns the first match of a pattern in what is printed.
func (r *running) await(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	timeout := time.After(40 * time.Second)
	for {
		text, changed := r.printed()
		if m := want.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-changed:
		case <-r.done:
			t.Fatalf("%v ended without %q: %v\n%s", r.cmd.Args, pattern, r.err, text)
		case <-timeout:
			t.Fatalf("%v does not print %q:\n%s", r.cmd.Args, pattern, text)
		}
	}
}

// count is how often a text was printed.
func (r *running) count(text string) int {
	printed, _ := r.printed()
	return strings.Count(printed, text)
}

// listener is the address of a line "ADDRESS -> edge-1 TARGET".
func (r *running) listener(t *testing.T, target string) string {
	t.Helper()
	return r.await(t, `(?m)^(\S+) -> `+regexp.QuoteMeta(target)+`$`)[1]
}

// output runs a command to its end, and gives its output or an error with all of it.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%v: %w: %s", cmd.Args, err, &stderr)
	}
	return string(out), nil
}

// exitCode is that of a command that has failed.
func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
