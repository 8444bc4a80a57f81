package testbed

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Port is a TCP port that is kept for a process of the test bed.
//
// The reservation is a socket that is bound but never listens, with SO_REUSEADDR.
// Linux hands such a port to nobody who asks for any free one, yet lets a server
// that also sets SO_REUSEADDR, as every Go server does, bind and listen on it. So
// the number is known before the server starts, stays the same when it is killed
// and started again, and cannot be lost to another process in between.
type Port struct {
	addr netip.AddrPort
	fd   int
}

// ReservePort reserves a free port on ip in the caller's network, or in ns when
// that is not nil. Release it with Close, after the last process that uses it.
func ReservePort(ns *Namespace, ip netip.Addr) (*Port, error) {
	var port *Port
	err := ns.Do(func() error {
		var err error
		port, err = reservePort(ip)
		return err
	})
	return port, err
}

func reservePort(ip netip.Addr) (*Port, error) {
	if !ip.Is4() {
		return nil, fmt.Errorf("reserve port: address %s is not IPv4", ip)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve port: socket: %w", err)
	}
	port := &Port{fd: fd}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		port.Close()
		return nil, fmt.Errorf("reserve port: reuse address: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ip.As4()}); err != nil {
		port.Close()
		return nil, fmt.Errorf("reserve port on %s: bind: %w", ip, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		port.Close()
		return nil, fmt.Errorf("reserve port on %s: read back: %w", ip, err)
	}
	inet, ok := name.(*unix.SockaddrInet4)
	if !ok {
		port.Close()
		return nil, fmt.Errorf("reserve port on %s: unexpected address type %T", ip, name)
	}
	port.addr = netip.AddrPortFrom(ip, uint16(inet.Port))
	return port, nil
}

// Addr returns the reserved address as HOST:PORT.
func (p *Port) Addr() string { return p.addr.String() }

// Number returns the port alone, in decimal.
func (p *Port) Number() string { return strconv.Itoa(int(p.addr.Port())) }

// Close gives the port back. It is safe to call more than once, but not
// concurrently.
func (p *Port) Close() {
	if p.fd >= 0 {
		// The descriptor is gone whatever close answers.
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}
