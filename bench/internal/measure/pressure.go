package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// errPressure says that a figure would be about the kernel.
var errPressure = errors.New("the kernel is short of memory for TCP, so this would measure the kernel: " +
	"end what else has connections, or raise the sysctl net.ipv4.tcp_mem")

// checkPressure fails when the kernel may be dropping what arrives for want of
// memory for TCP. That ends only below the first number of tcp_mem (tcp(7)).
func checkPressure() error {
	limits, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err != nil {
		return fmt.Errorf("memory of TCP: %w", err)
	}
	use, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return fmt.Errorf("memory of TCP: %w", err)
	}
	short, err := underPressure(limits, use)
	if err != nil {
		return fmt.Errorf("memory of TCP: %w", err)
	}
	if short {
		return errPressure
	}
	return nil
}

// underPressure compares the use that sockstat shows, in pages, with tcp_mem.
func underPressure(limits, sockstat []byte) (bool, error) {
	fields := bytes.Fields(limits)
	if len(fields) != 3 {
		return false, errors.New("tcp_mem has no three numbers")
	}
	pressure, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return false, fmt.Errorf("tcp_mem: %w", err)
	}
	for line := range bytes.Lines(sockstat) {
		words := bytes.Fields(line)
		if len(words) < 2 || string(words[0]) != "TCP:" || string(words[len(words)-2]) != "mem" {
			continue
		}
		used, err := strconv.ParseInt(string(words[len(words)-1]), 10, 64)
		if err != nil {
			return false, fmt.Errorf("sockstat: %w", err)
		}
		return used >= pressure, nil
	}
	return false, errors.New("sockstat has no memory of TCP")
}
