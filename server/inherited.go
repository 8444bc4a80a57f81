package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// inherited are listeners that somebody else has opened.
type inherited struct {
	listeners []net.Listener
}

// open returns the listener that was handed over for an address, and else opens one.
func (i *inherited) open(ctx context.Context, address string) (net.Listener, error) {
	for n, ln := range i.listeners {
		if sameAddress(ln.Addr(), address) {
			i.listeners = slices.Delete(i.listeners, n, n+1)
			return ln, nil
		}
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// sameAddress tells that a listener is what listening on a host:port gives. Names are
// not looked up, and every spelling of all addresses is one.
func sameAddress(have net.Addr, want string) bool {
	tcp, ok := have.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(want)
	if err != nil || port != strconv.Itoa(tcp.Port) {
		return false
	}
	if host == "" {
		return tcp.IP.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	own := tcp.AddrPort().Addr().Unmap()
	return ip.IsUnspecified() && own.IsUnspecified() || ip.Unmap() == own
}

// rest refuses listeners that no address is for: their clients would wait in vain.
func (i *inherited) rest() error {
	if len(i.listeners) == 0 {
		return nil
	}
	var left []string
	for _, ln := range i.listeners {
		left = append(left, ln.Addr().String())
	}
	return fmt.Errorf("listen: sockets were handed over for %s, which no listen address of the configuration is: add it, or remove it from the socket unit",
		strings.Join(left, ", "))
}

// close closes what nobody took.
func (i *inherited) close() error {
	var errs []error
	for _, ln := range i.listeners {
		errs = append(errs, ln.Close())
	}
	i.listeners = nil
	return errors.Join(errs...)
}
