package ocm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// watch is kubectl get --watch by the hub.
type watch struct {
	cmd  *exec.Cmd
	out  *lines
	done chan error
	stop context.CancelFunc
}

// lines are what a process writes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// watch starts one and waits until it has seen something.
func (w *world) watch(ctx context.Context, t *testing.T) *watch {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	v := &watch{out: &lines{}, done: make(chan error, 1), stop: stop}
	v.cmd = w.kubectl.Command(ctx, "get", "configmaps", "--namespace", "default", "--watch", "--output=name")
	v.cmd.Stdout, v.cmd.Stderr = v.out, v.out
	must(t, v.cmd.Start())
	go reap(v.cmd, v.done)
	v.sees(ctx, t, w, "before")
	return v
}

// reap sends one result, when the process has ended.
func reap(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }

// sees makes an object and waits until the watch tells of it.
func (v *watch) sees(ctx context.Context, t *testing.T, w *world, name string) {
	t.Helper()
	_, err := w.managed.Kubectl(ctx, "create", "configmap", "--namespace", "default", name)
	must(t, err)
	must(t, testbed.Poll(ctx, "the watch to see "+name, func(context.Context) error {
		if text := v.out.String(); !strings.Contains(text, "configmap/"+name) {
			return fmt.Errorf("%q", text)
		}
		select {
		case err := <-v.done:
			return fmt.Errorf("the watch has ended: %w", err)
		default:
			return nil
		}
	}))
}

// end ends it, and wants it to have run until then.
func (v *watch) end(t *testing.T) {
	t.Helper()
	select {
	case err := <-v.done:
		t.Errorf("the watch has ended: %v: %s", err, v.out)
		return
	default:
	}
	v.stop()
	var exit *exec.ExitError
	if err := <-v.done; err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// atEnd ends a process with the whole test, which a subtest has started.
func (w *world) atEnd(t *testing.T, p *testbed.Process) {
	t.Helper()
	w.ends = append(w.ends, p)
}
