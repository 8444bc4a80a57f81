package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/culvertdev/culvert/internal/forward"
)

// commandEndedError is the end of a command that culvert ran and that has failed. Its exit
// code is that of the command or, where a signal ended it, 128 and the signal's number,
// as a shell has it.
type commandEndedError struct {
	code int
}

// Error says what the command has not said itself.
func (e *commandEndedError) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", e.code)
}

// runCommand runs a command to its end with env in its environment. A terminal's signals
// reach it by themselves; SIGTERM and SIGHUP are passed on.
func runCommand(ctx context.Context, command, env []string) error {
	// The context ends with the first signal, which may be the command's to handle.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...) //nolint:gosec // the user's own command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	signals := make(chan os.Signal, 4)
	// Interrupts are taken, so that a second one does not end culvert before the command.
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("-- %s: %w", command[0], err)
	}
	ended := make(chan error, 1)
	go waitFor(cmd, ended)
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt {
				_ = cmd.Process.Signal(s) // one that has ended needs none
			}
		case err := <-ended:
			return commandError(err)
		}
	}
}

// waitFor reports the end of a command; it ends with it.
func waitFor(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }

func commandError(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &commandEndedError{code: code}
}

// listenerEnv names the listeners for a command.
func listenerEnv(listeners []forward.Listener) []string {
	var env []string
	for i, l := range listeners {
		name := fmt.Sprintf("CULVERT_FORWARD_%d", i+1)
		env = append(env, name+"="+l.Addr().String())
		if host, port, err := net.SplitHostPort(l.Addr().String()); err == nil && l.Addr().Network() == "tcp" {
			env = append(env, name+"_HOST="+host, name+"_PORT="+port)
		}
	}
	return env
}
