package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
)

// InsideAddress is the address of the one host in a PrivateNetwork, from the
// documentation block 192.0.2.0/24 (RFC 5737). Every private network uses the
// same, as real private networks do.
var InsideAddress = netip.MustParseAddr("192.0.2.2")

var (
	insideNet     = netip.MustParsePrefix("192.0.2.0/24")
	insideGateway = netip.MustParseAddr("192.0.2.1")
	anywhere      = netip.MustParsePrefix("0.0.0.0/0")
)

// networks numbers the private networks of a process: each gets a link net of
// its own, 198.18.N.0/24.
var networks atomic.Uint32

// PrivateNetwork is a host behind a router that does what a firm's or a home's
// router does: source NAT for what goes out, and nothing that is new comes in.
//
//	isolated network          router                 Inside
//	198.18.N.1 -------- 198.18.N.2 | 192.0.2.1 ----- 192.0.2.2
//	HubAddress 198.18.0.1          NAT, no new inbound
type PrivateNetwork struct {
	// Inside is the host of the private network: the managed cluster and its
	// agent run in it.
	Inside *Namespace
	// Outside is the router's address on the outer side, the only trace of the
	// network that a peer outside sees.
	Outside netip.Addr

	router *Namespace
}

// NewPrivateNetwork makes a private network. The process must be isolated (see
// Isolate), so that nothing of the machine's own network changes.
func NewPrivateNetwork() (*PrivateNetwork, error) {
	if !Isolated() {
		return nil, errors.New("private network: the process is not isolated: call testbed.Isolate first in TestMain")
	}
	number := networks.Add(1)
	if number > 255 {
		return nil, errors.New("private network: more than 255 in one process")
	}
	link := netip.AddrFrom4([4]byte{198, 18, byte(number), 1})
	p := &PrivateNetwork{Outside: link.Next()}
	if err := p.build(fmt.Sprintf("net%d", number), link); err != nil {
		return nil, errors.Join(fmt.Errorf("private network: %w", err), p.Close())
	}
	return p, nil
}

func (p *PrivateNetwork) build(name string, link netip.Addr) error {
	var err error
	if p.router, err = newNamespace(); err != nil {
		return err
	}
	if p.Inside, err = newNamespace(); err != nil {
		return err
	}
	if err := addVeth(name, p.router, "outer"); err != nil {
		return err
	}
	if err := errors.Join(addAddress(name, netip.PrefixFrom(link, 24)), setUp(name)); err != nil {
		return err
	}
	err = p.router.Do(func() error {
		if err := addVeth("inner", p.Inside, "eth0"); err != nil {
			return err
		}
		if err := errors.Join(
			addAddress("outer", netip.PrefixFrom(p.Outside, 24)), setUp("outer"),
			addAddress("inner", netip.PrefixFrom(insideGateway, insideNet.Bits())), setUp("inner"),
		); err != nil {
			return err
		}
		if err := addRoute(anywhere, link); err != nil {
			return err
		}
		// proc(5): this folder shows the namespace of the thread which opens it.
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return fmt.Errorf("router: forwarding: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = p.Inside.Do(func() error {
		if err := errors.Join(addAddress("eth0", netip.PrefixFrom(InsideAddress, insideNet.Bits())), setUp("eth0")); err != nil {
			return err
		}
		return addRoute(anywhere, insideGateway)
	})
	if err != nil {
		return err
	}
	return p.router.firewall("inner", "outer")
}

// Close ends the network. Processes in it lose their links.
func (p *PrivateNetwork) Close() error {
	var errs []error
	if p.router != nil {
		// Processes may keep Inside alive; without the router it is cut off. Once
		// its namespace is gone the kernel removes the links on its own.
		errs = append(errs, p.router.Do(func() error { return removeLinks("outer", "inner") }), p.router.Close())
	}
	if p.Inside != nil {
		errs = append(errs, p.Inside.Close())
	}
	return errors.Join(errs...)
}

// RouteInto gives the isolated network a route to the inside address by way of
// the router, as an attacker on the outer link would. The route shows that it is
// the router's policy, and not a missing route, which keeps callers out.
func (p *PrivateNetwork) RouteInto() error {
	return addRoute(netip.PrefixFrom(InsideAddress, 32), p.Outside)
}

// addVeth makes a pair of links: name in the current namespace, peerName in peer.
func addVeth(name string, peer *Namespace, peerName string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(int(peer.handle))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s: add: %w", name, err)
	}
	// The peer gets its address and state from its own namespace.
	return nil
}

func removeLinks(names ...string) error {
	var errs []error
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: remove: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func addRoute(to netip.Prefix, gateway netip.Addr) error {
	route := &netlink.Route{
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)},
		Gw:  gateway.AsSlice(),
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route %s via %s: %w", to, gateway, err)
	}
	return nil
}
