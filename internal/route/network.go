package route

import (
	"fmt"
	"net/netip"
)

// ParseNetwork parses a range of addresses, such as 10.1.0.0/16, or one address, in the
// one spelling: without bits beyond its length, without a zone, and IPv4 not inside of
// IPv6. An error says what is wrong and what to write; whoever has the field names it.
func ParseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		address, single := netip.ParseAddr(text)
		switch {
		case single != nil:
			return netip.Prefix{}, fmt.Errorf("%s is no network or address: want 10.1.0.0/16 or 10.1.0.7", quote(text))
		case address.Zone() != "":
			return netip.Prefix{}, fmt.Errorf("%s has a zone: leave out what follows '%%'", quote(text))
		}
		network = netip.PrefixFrom(address, address.BitLen())
	}
	switch {
	case network.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is IPv4 inside of IPv6: write it as IPv4", quote(text))
	case network != network.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length: write %v", quote(text), network.Masked())
	}
	return network, nil
}
