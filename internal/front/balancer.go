package front

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/pires/go-proxyproto"
)

// Balancers are the load balancers before a port whose word counts about where a
// connection comes from: they say it in the PROXY protocol, version 1 or 2
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
type Balancers []netip.Prefix

// listed tells whether addr is one of them.
func (b Balancers) listed(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(b, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// errNoHeader refuses what a load balancer sends without saying for whom: such a
// connection would be taken for the load balancer's own.
var errNoHeader = errors.New("PROXY protocol: the connection is from a listed load balancer and begins with no header: switch the PROXY protocol on there, or take it off proxyProtocol.from")

// readHeader takes the load balancer's header off c. The deadline is the caller's.
// A load balancer's own connections, such as its health checks, keep its address.
func readHeader(c *conn) error {
	r := bufio.NewReader(c.TCPConn)
	header, err := proxyproto.Read(r)
	switch {
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
		return errNoHeader
	case err != nil:
		return fmt.Errorf("PROXY protocol: %w", err)
	}
	if !header.Command.IsLocal() {
		source, _, ok := header.TCPAddrs()
		if !ok || source == nil {
			return errors.New("PROXY protocol: the header is not about a TCP connection")
		}
		c.remote = source
	}
	if n := r.Buffered(); n > 0 {
		ahead, err := r.Peek(n)
		if err != nil {
			return fmt.Errorf("PROXY protocol: %w", err)
		}
		c.ahead = slices.Clone(ahead)
	}
	return nil
}
