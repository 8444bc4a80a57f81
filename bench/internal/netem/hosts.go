package netem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/culvertdev/culvert/bench/internal/process"
)

// Addresses of the two hosts, from the block of RFC 2544, which is routed nowhere.
const (
	NearAddress = "198.18.0.1"
	FarAddress  = "198.18.0.2"
)

// insideVariable tells the program that it is in its own namespace already.
const insideVariable = "CULVERT_BENCH_NAMESPACE"

// Enter runs the program again in a network namespace of its own, unless it is in
// one: it returns only there, or with the reason why that cannot be.
func Enter() error {
	if os.Getenv(insideVariable) != "" {
		return command(context.Background(), nil, "ip", "link", "set", "lo", "up")
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it with sudo")
	}
	for _, tool := range []string{"ip", "nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("network namespaces need the command %s (Debian: apt-get install iproute2 util-linux): %w", tool, err)
		}
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	args := append([]string{unshare, "--net", "--", self}, os.Args[1:]...)
	err = syscall.Exec(unshare, args, append(os.Environ(), insideVariable+"=1")) //nolint:gosec // this program itself
	return fmt.Errorf("network namespace: %s: %w", unshare, err)
}

// Hosts are the near host, which this process is, and the far one.
type Hosts struct {
	holder *process.Process
	dir    string
}

// NewHosts makes the far host. Close it. dir is an existing folder for logs.
func NewHosts(ctx context.Context, dir string) (*Hosts, error) {
	holder, err := process.Start(ctx, process.Spec{
		Name: "far-host", Role: holdRole, Config: struct{}{}, Dir: dir, Within: []string{"unshare", "--net", "--"},
	})
	if err != nil {
		return nil, err
	}
	h := &Hosts{holder: holder, dir: dir}
	if err := command(ctx, h.Far(), "ip", "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for _, within := range [][]string{nil, h.Far()} {
		// Room for the bandwidth-delay product of every line.
		for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
			if err := command(ctx, within, "sh", "-c", `echo 4096 131072 67108864 >/proc/sys/net/ipv4/"$0"`, name); err != nil {
				return nil, errors.Join(err, h.Close())
			}
		}
	}
	return h, nil
}

// Far returns what to put before a command line to run it on the far host.
func (h *Hosts) Far() []string {
	return []string{"nsenter", "--net=/proc/" + strconv.Itoa(h.holder.PID()) + "/ns/net", "--"}
}

// CongestionControl returns the TCP congestion control of both hosts, which is
// the machine's: namespaces may choose from few others.
func (*Hosts) CongestionControl() (string, error) {
	name, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "", fmt.Errorf("congestion control: %w", err)
	}
	return strings.TrimSpace(string(name)), nil
}

// Close ends the far host; nothing may run there any more.
func (h *Hosts) Close() error { return h.holder.Stop() }

// command runs a short command, within what is put before it.
func command(ctx context.Context, within []string, args ...string) error {
	args = append(append([]string{}, within...), args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // fixed commands of this package
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// holdRole is that of a process which keeps a namespace.
const holdRole = "host"

func hold(ctx context.Context, _ struct{}, ready func(any) error) error {
	if err := ready(true); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Roles are what this executable can be as a child.
func Roles() map[string]process.Role {
	return map[string]process.Role{holdRole: process.As(hold), lineRole: process.As(runLine)}
}
