// Package clitest runs a command as a process of its own in the tests of its
// package: the test binary is the command too.
package clitest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary the command.
const asCommand = "CULVERT_TEST_AS_COMMAND"

// Main is for TestMain. In a process that [Run] or [Start] made it calls command,
// which is the package's main, and does not return; else it runs the tests and
// looks for goroutines that they left.
func Main(m *testing.M, command func()) {
	if os.Getenv(asCommand) != "" {
		command()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Result is what a command has left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Command returns the command with dir as its working folder and its home, and
// nothing of a cluster in its environment. It is not started.
func Command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...) //nolint:gosec // the test binary itself
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "KUBE") || strings.HasPrefix(variable, "XDG_") || strings.HasPrefix(variable, "CULVERT_")
	})
	// The race detector's runtime else waits a second at the end.
	cmd.Env = append(cmd.Env, asCommand+"=1", "HOME="+dir, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// Run runs the command in dir to its end. One that does not end within ten
// seconds fails the test.
func Run(t *testing.T, dir string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := Command(ctx, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v: %s", args, errors.Join(ctx.Err(), err), &stderr)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
}

// Failure is a command line that must be refused.
type Failure struct {
	Name string
	Args []string
	// Code is the exit code; 0 is any of a failure.
	Code int
	// Says are parts of the error: the field, what is wrong, what mends it.
	Says []string
}

// Fails returns the Failure of a command line.
func Fails(name string, args []string, says ...string) Failure {
	return Failure{Name: name, Args: args, Says: says}
}

// Refuses runs each of cases in dir and wants its exit code, nothing on standard
// output, and one error, the last thing on standard error, that begins with the
// command's name and has all the parts.
func Refuses(t *testing.T, dir, name string, cases []Failure) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got := Run(t, dir, c.Args...)
			if got.Code == 0 || c.Code != 0 && got.Code != c.Code || got.Stdout != "" {
				t.Errorf("exit code %d, standard output %q", got.Code, got.Stdout)
			}
			prefix := name + ": "
			if strings.Count("\n"+got.Stderr, "\n"+prefix) != 1 {
				t.Errorf("want one error that begins with %q: %s", prefix, got.Stderr)
			}
			_, message, _ := strings.Cut("\n"+got.Stderr, "\n"+prefix)
			for _, part := range c.Says {
				if !strings.Contains(message, part) {
					t.Errorf("the error lacks %q: %s", part, message)
				}
			}
			if strings.Contains(message, "Usage:") || strings.Contains(message, "goroutine ") {
				t.Errorf("the error is not all that is said: %s", message)
			}
		})
	}
}

// Start starts the command in dir; the end of the test kills it, if nothing else
// has. Its standard error is in the returned file.
func Start(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, stderr string) {
	t.Helper()
	log, err := os.CreateTemp(dir, "stderr-*")
	if err != nil {
		t.Fatal(err)
	}
	cmd = Command(context.Background(), dir, args...)
	cmd.Stderr = log
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // and been waited for
	})
	return cmd, log.Name()
}

// AwaitText waits until file has text, and returns all of the file then.
func AwaitText(t *testing.T, file, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), text) {
			return string(content)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no %q in: %s", text, content)
		}
	}
}
