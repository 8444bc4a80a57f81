package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// jailVariable makes the test binary enter a jail and become a program in it.
	jailVariable = "CULVERT_E2E_JAIL"
	// nonroot is the user of images; readers is a group that may read secrets.
	nonroot = 65532
	readers = 65531
)

// jail says how a program is run: in a root of its own that is read-only, as a user
// who is not root, with no capability but those named, and with no way to get any.
// There is no /proc, no /dev and no shell.
type jail struct {
	// Root is the folder that becomes "/".
	Root string
	// Writable and Mounts are the folders that are mounted in it, by their path inside.
	Writable, Mounts map[string]string
	// Capabilities are the numbers of those that the program keeps.
	Capabilities []int
	// Syscalls are those that the program may make, all of them where there are none;
	// others fail with EPERM.
	Syscalls []string
	// Groups are the user's further groups.
	Groups []int
	// Args are the program's path inside and its arguments, Env its whole environment.
	Args, Env []string
}

// process is for testbed.StartProcess. unshare(1) gives it mounts of its own.
func (j jail) process(t *testing.T, name, logs string) testbed.ProcessConfig {
	t.Helper()
	path, args, env := j.command(t)
	return testbed.ProcessConfig{Name: name, Path: path, Args: args, Env: []string{env}, LogDir: logs}
}

// run runs a program to its end and returns its standard output.
func (j jail) run(ctx context.Context, t *testing.T) string {
	t.Helper()
	path, args, env := j.command(t)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", j.Args, err)
	}
	return string(out)
}

func (j jail) command(t *testing.T) (path string, args []string, env string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	raw, err := json.Marshal(j)
	must(t, err)
	path, err = exec.LookPath("unshare")
	must(t, err)
	return path, []string{"--mount", "--propagation", "private", self}, jailVariable + "=" + string(raw)
}

// enterJail turns this process into the program of the jail; it returns only when
// it cannot. Nothing of it may run on another thread.
func enterJail() error {
	runtime.LockOSThread()
	var j jail
	if err := json.Unmarshal([]byte(os.Getenv(jailVariable)), &j); err != nil {
		return err
	}
	if err := j.mount(); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(j.Root), unix.Chdir("/")); err != nil {
		return fmt.Errorf("chroot %s: %w", j.Root, err)
	}
	if err := j.drop(); err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := j.filter(); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", j.Args[0], unix.Exec(j.Args[0], j.Args, j.Env))
}

// mount makes the root read-only, but for what is mounted in it: a runtime makes
// the mount points that an image lacks, so the jail does.
func (j jail) mount() error {
	if err := unix.Mount(j.Root, j.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", j.Root, err)
	}
	for _, mounts := range []map[string]string{j.Mounts, j.Writable} {
		for inside, from := range mounts {
			point := filepath.Join(j.Root, inside)
			if err := os.MkdirAll(point, 0o755); err != nil {
				return err
			}
			if err := unix.Mount(from, point, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount %s on %s: %w", from, inside, err)
			}
		}
	}
	for inside := range j.Mounts {
		if err := readOnly(filepath.Join(j.Root, inside)); err != nil {
			return err
		}
	}
	return readOnly(j.Root)
}

// readOnly keeps what the mount had: the flags of a mount that an ordinary user
// took over cannot be taken away.
func readOnly(path string) error {
	var have unix.Statfs_t
	if err := unix.Statfs(path, &have); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	kept := uintptr(have.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|kept, ""); err != nil {
		return fmt.Errorf("remount %s read-only: %w", path, err)
	}
	return nil
}

// drop gives up the user and the capabilities. In a user namespace that has one id
// alone the user stays, as who runs the tests, and root is nobody special any more.
func (j jail) drop() error {
	const noRoot = 0x1 | 0x2 // SECBIT_NOROOT, SECBIT_NOROOT_LOCKED (capabilities(7))
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
		return fmt.Errorf("securebits: %w", err)
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if !slices.Contains(j.Capabilities, c) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
				return fmt.Errorf("capability %d: %w", c, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if manyUsers {
		if err := errors.Join(syscall.Setgroups(j.Groups), syscall.Setresgid(nonroot, nonroot, nonroot), syscall.Setresuid(nonroot, nonroot, nonroot)); err != nil {
			return fmt.Errorf("user: %w", err)
		}
		// The kernel forgets it with the user: the program must not outlive the test.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return err
		}
	}
	var bits [2]unix.CapUserData
	for _, c := range j.Capabilities {
		bit := uint32(1) << (c % 32)
		bits[c/32].Effective |= bit
		bits[c/32].Permitted |= bit
		bits[c/32].Inheritable |= bit
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &bits[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	for _, c := range j.Capabilities {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("ambient capability %d: %w", c, err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// filter installs that of the system calls, for this thread, which becomes the
// program. Names of other architectures count for nothing.
func (j jail) filter() error {
	if len(j.Syscalls) == 0 {
		return nil
	}
	machine, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("system calls: %w", err)
	}
	known := slices.DeleteFunc(slices.Clone(j.Syscalls), func(name string) bool {
		_, ok := machine.SyscallNames[name]
		return !ok
	})
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: known}},
	}}); err != nil {
		return fmt.Errorf("system calls: %w", err)
	}
	return nil
}

// manyUsers tells whether files and processes can belong to others than who runs
// the tests: root's tests have all ids, those of an ordinary user one.
var manyUsers = func() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(text))
	return err == nil && len(fields) == 3 && len(fields[2]) > 5
}()

// own gives a file or folder to a user and group of the jail, where there are any.
func own(t *testing.T, path string, user, group int) {
	t.Helper()
	if manyUsers {
		must(t, os.Chown(path, user, group))
	}
}

// ids returns the real user of a process and its effective capabilities, as
// /proc has them.
func ids(t *testing.T, p *testbed.Process) (user, capabilities string) {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", p.PID()))) {
		switch fields := strings.Fields(line); fields[0] {
		case "Uid:":
			user = fields[1]
		case "CapEff:":
			capabilities = fields[1]
		}
	}
	return user, capabilities
}
