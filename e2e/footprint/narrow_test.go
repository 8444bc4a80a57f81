package footprint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// narrowBuffer is the kernel's buffer at the test's end of a connection.
	narrowBuffer = 16 << 10
	// ethernetMSS is the largest segment of an ordinary network.
	ethernetMSS = 1460
)

// narrow keeps the kernel's memory for a connection small: the loopback's own
// segments of 64 KiB make the kernel give the other end a send buffer of 4 MiB from
// the start, and a thousand stalled connections would use up its memory for TCP
// before anything else shows. It suits a net.Dialer and a net.ListenConfig.
func narrow(_, _ string, raw syscall.RawConn) error {
	var err error
	set := func(fd uintptr) {
		for _, option := range [][3]int{
			{syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, ethernetMSS},
			{syscall.SOL_SOCKET, syscall.SO_RCVBUF, narrowBuffer},
			{syscall.SOL_SOCKET, syscall.SO_SNDBUF, narrowBuffer},
		} {
			err = errors.Join(err, syscall.SetsockoptInt(int(fd), option[0], option[1], option[2]))
		}
	}
	return errors.Join(raw.Control(set), err)
}

// limitSockets bounds the buffers that the kernel gives to the other ends, which
// are the hub's and the agent's, in the network of the calling thread: three
// numbers for the least, the first and the largest size (tcp(7)).
func limitSockets() error {
	var errs []error
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("4096 16384 131072"), 0))
	}
	return errors.Join(errs...)
}

// dialNarrow connects with small buffers.
func dialNarrow(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Control: narrow}).DialContext(ctx, network, address)
}

// listen listens on a free port of the service's address; connections have small
// buffers when they are to be narrow. The server that is given it closes it.
func (l *lab) listen(t *testing.T, isNarrow bool) net.Listener {
	t.Helper()
	var config net.ListenConfig
	if isNarrow {
		config.Control = narrow
	}
	var ln net.Listener
	must(t, l.private.Inside.Do(func() error {
		var err error
		ln, err = config.Listen(t.Context(), "tcp", netip.AddrPortFrom(serviceAddress, 0).String())
		return err
	}))
	return ln
}

// tcpLimits is where the outer process leaves the machine's tcp_mem, which no
// other network than the machine's own shows.
func tcpLimits(dir string) string { return filepath.Join(dir, "tcp_mem") }

// saveTCPLimits runs in the outer process.
func saveTCPLimits(dir string) error {
	limits, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err != nil {
		return fmt.Errorf("memory of TCP: %w", err)
	}
	return os.WriteFile(tcpLimits(dir), limits, 0o600)
}

// kernelTCP returns the bytes that the kernel uses for all TCP connections, and
// from how many on it is short of them (tcp_mem in tcp(7)): then it drops what
// arrives, and the test would be about the kernel.
func kernelTCP() (used, pressure int64, err error) {
	limits, err := os.ReadFile(tcpLimits(testbed.Dir()))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of TCP: %w", err)
	}
	sockets, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, 0, fmt.Errorf("memory of TCP: %w", err)
	}
	_, line, _ := bytes.Cut(sockets, []byte("\nTCP: "))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	_, pages, _ := bytes.Cut(line, []byte(" mem "))
	var rest int64
	if _, err := fmt.Sscan(string(limits), &pressure, &rest, &rest); err != nil {
		return 0, 0, fmt.Errorf("memory of TCP: tcp_mem is %q: %w", limits, err)
	}
	if _, err := fmt.Sscan(string(pages), &used); err != nil {
		return 0, 0, fmt.Errorf("memory of TCP: sockstat has %q: %w", line, err)
	}
	page := int64(os.Getpagesize())
	return used * page, pressure * page, nil
}
