package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HubAddress is an address of the isolated network that every private network
// can reach: a hub for agents in private networks listens on it. It is from the
// block of RFC 2544, which is routed nowhere.
var HubAddress = netip.MustParseAddr("198.18.0.1")

const (
	// dirVariable tells the inner process the folder of the run, and that it is
	// the inner one.
	dirVariable = "CULVERT_E2E_DIR"
	// keepVariable keeps that folder.
	keepVariable = "CULVERT_E2E_KEEP"
	// prepareTimeout covers the first build of all servers on a slow machine.
	prepareTimeout = 30 * time.Minute
)

// Isolate runs the test binary once more in a network namespace of its own and
// does not return in the outer process, which only waits, passes signals on and
// removes the folder of the run. It must be the first call of TestMain.
//
// In the inner process it brings the loopback and HubAddress up and returns. So
// ports, addresses and interfaces of one run cannot meet those of another, nor
// the machine's, and the machine's network is never changed. Root is not needed:
// an ordinary user gets a user namespace too.
//
// The inner process has no way out to the machine's network. Whatever needs it
// (building, downloading modules) belongs into prepare, which runs in the outer
// process; dir is the folder of the run, in the inner process Dir().
func Isolate(prepare func(ctx context.Context, dir string) error) {
	if Isolated() {
		if err := enterIsolation(); err != nil {
			fmt.Fprintln(os.Stderr, "testbed: isolate:", err)
			os.Exit(1)
		}
		look(time.Now()) // see HeldUp
		return
	}
	code, err := runIsolated(prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed: isolate:", err)
	}
	os.Exit(code)
}

// Isolated reports whether the process is the inner one of Isolate.
func Isolated() bool { return os.Getenv(dirVariable) != "" }

// Dir returns the folder of an isolated run, removed at its end; "" when the
// process is not isolated.
func Dir() string { return os.Getenv(dirVariable) }

func enterIsolation() error {
	if err := setUp("lo"); err != nil {
		return err
	}
	// A second TestMain call would add it twice; the kernel refuses that.
	if err := addAddress("lo", netip.PrefixFrom(HubAddress, 32)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// runIsolated is the outer process. It returns the exit code of the inner one.
func runIsolated(prepare func(context.Context, string) error) (code int, err error) {
	// Short, because paths of Unix sockets inside end at 108 bytes.
	dir, err := os.MkdirTemp("", "culvert-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() {
		if os.Getenv(keepVariable) != "" {
			fmt.Fprintln(os.Stderr, "testbed: kept", dir)
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)

	if prepare != nil {
		ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
		defer cancel()
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := prepare(ctx, dir); err != nil {
			return 1, fmt.Errorf("prepare: %w", err)
		}
	}
	temp := filepath.Join(dir, "t")
	if err := os.Mkdir(temp, 0o700); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), dirVariable+"="+dir, "TMPDIR="+temp)
	cmd.SysProcAttr = isolation()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start the tests in a network namespace: %w (as an ordinary user this needs unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu; or run the tests as root)", err)
	}
	stop := make(chan struct{})
	forwarded := make(chan struct{})
	go forwardSignals(cmd.Process, signals, stop, forwarded)
	err = cmd.Wait()
	close(stop)
	<-forwarded
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil // the tests have said what is wrong
	default:
		return 1, err
	}
}

// isolation makes the kernel give the child a network of its own, and the right
// to configure it.
func isolation() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// forwardSignals passes signals to the inner process until stop is closed, then
// closes done.
func forwardSignals(to *os.Process, signals <-chan os.Signal, stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case s := <-signals:
			if err := to.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				fmt.Fprintf(os.Stderr, "testbed: pass %v on: %v\n", s, err)
			}
		case <-stop:
			return
		}
	}
}
