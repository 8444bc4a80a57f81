package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func TestProcess(t *testing.T) {
	shell := func(script string, ready func(context.Context) error) ProcessConfig {
		return ProcessConfig{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, LogDir: t.TempDir(), Ready: ready}
	}
	never := func(context.Context) error { return errors.New("not yet") }

	t.Run("a process that exits before it is ready fails at once with its log", func(t *testing.T) {
		_, err := StartProcess(within(t, time.Minute), shell("echo no such flag; exit 3", never))
		if err == nil || !errors.Is(err, errExited) || !strings.Contains(err.Error(), "no such flag") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("a process that is not ready in time is killed and says what was missing", func(t *testing.T) {
		_, err := StartProcess(within(t, 100*time.Millisecond), shell("exec sleep 1000", never))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not yet") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("stop ends the whole process group", func(t *testing.T) {
		p, err := StartProcess(t.Context(), shell("sleep 1000 & echo $!; wait", nil))
		if err != nil {
			t.Fatal(err)
		}
		var child int
		err = Poll(within(t, time.Minute), "the child's id", func(context.Context) error {
			text, err := os.ReadFile(p.Log())
			if err != nil {
				return err
			}
			_, err = fmt.Sscan(string(text), &child)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		err = Poll(within(t, time.Minute), "the end of the child", func(context.Context) error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
			if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
				return nil // gone, or dead and waiting for init to notice
			}
			return fmt.Errorf("child %d still runs", child)
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("a process that ignores SIGTERM is killed and reported", func(t *testing.T) {
		ready := "the trap"
		p, err := StartProcess(t.Context(), shell("trap '' TERM; echo "+ready+"; while :; do sleep 1000; done", nil))
		if err != nil {
			t.Fatal(err)
		}
		err = Poll(within(t, time.Minute), ready, func(context.Context) error {
			text, err := os.ReadFile(p.Log())
			if err == nil && len(text) == 0 {
				err = errors.New("no output")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Stop(within(t, 100*time.Millisecond)); err == nil {
			t.Error("stop reports a clean end")
		}
		<-p.Done()
	})
	t.Run("restart gives a new process, and a running one is not started twice", func(t *testing.T) {
		p, err := StartProcess(t.Context(), shell("exec sleep 1000", nil))
		if err != nil {
			t.Fatal(err)
		}
		first := p.PID()
		if err := p.Start(t.Context()); err == nil {
			t.Error("start of a running process succeeded")
		}
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p.PID() == first {
			t.Error("the process is the same after a restart")
		}
		if err := p.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := p.Kill9(); err != nil {
			t.Errorf("second kill: %v", err)
		}
	})
}

func TestPort(t *testing.T) {
	ns, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	// Eight ports in all, so that the test sees the kernel run out of them.
	err = ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40007"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	port, err := ReservePort(ns, loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()

	t.Run("a server can listen on a reserved port again and again", func(t *testing.T) {
		for range 3 {
			l, err := ns.Listen(t.Context(), port.Addr())
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	})
	t.Run("a reserved port is given to nobody who asks for any", func(t *testing.T) {
		for i := range 8 {
			l, err := ns.Listen(t.Context(), "127.0.0.1:0")
			if i == 7 {
				if !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("the eighth of seven free ports: %v, %v", l, err)
				}
				break
			}
			if err != nil {
				t.Fatalf("port %d: %v", i, err)
			}
			defer l.Close()
		}
	})
}
