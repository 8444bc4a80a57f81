package policy

import "net/netip"

// A range is special when a connection to it means the machine itself, its
// neighbours, or whoever runs it, wherever it is dialled from.
type specialRange struct {
	kind   string
	prefix netip.Prefix
}

// The addresses of the IANA registries
// (https://www.iana.org/assignments/iana-ipv4-special-registry,
// https://www.iana.org/assignments/iana-ipv6-special-registry), and those under
// which clouds hand out credentials to their machines.
var specialRanges = []specialRange{
	{"metadata", netip.MustParsePrefix("169.254.169.254/32")},
	{"metadata", netip.MustParsePrefix("169.254.170.2/32")},   // Amazon ECS tasks
	{"metadata", netip.MustParsePrefix("169.254.170.23/32")},  // Amazon EKS pods
	{"metadata", netip.MustParsePrefix("100.100.100.200/32")}, // Alibaba Cloud
	{"metadata", netip.MustParsePrefix("168.63.129.16/32")},   // Azure
	{"metadata", netip.MustParsePrefix("192.0.0.192/32")},     // Oracle Cloud
	{"metadata", netip.MustParsePrefix("fd00:ec2::/32")},      // Amazon EC2 and EKS
	{"metadata", netip.MustParsePrefix("fd20:ce::254/128")},   // Google Cloud
	{"loopback", netip.MustParsePrefix("127.0.0.0/8")},
	{"loopback", netip.MustParsePrefix("::1/128")},
	{"unspecified", netip.MustParsePrefix("0.0.0.0/8")}, // this host on this network
	{"unspecified", netip.MustParsePrefix("::/128")},
	{"link-local", netip.MustParsePrefix("169.254.0.0/16")},
	{"link-local", netip.MustParsePrefix("fe80::/10")},
	{"link-local", netip.MustParsePrefix("fec0::/10")}, // site-local, which some systems still route
	{"multicast", netip.MustParsePrefix("224.0.0.0/4")},
	{"multicast", netip.MustParsePrefix("ff00::/8")},
	{"broadcast", netip.MustParsePrefix("255.255.255.255/32")},
	{"reserved", netip.MustParsePrefix("240.0.0.0/4")},
}

// SpecialAddress says of what kind an address is that a policy allows only when
// one of its CIDRs lies inside of the kind's range: "loopback", "link-local",
// "metadata", "unspecified", "multicast", "broadcast" or "reserved". IPv4 inside
// of IPv6 (mapped, compatible, NAT64, 6to4) counts as what is inside. An invalid
// address is "unspecified".
func SpecialAddress(a netip.Addr) (kind string, special bool) {
	kind, _, special = specialAddress(a)
	return kind, special
}

// specialAddress also returns inside of which network a CIDR has to be to list a.
func specialAddress(a netip.Addr) (kind string, within netip.Prefix, special bool) {
	if !a.IsValid() {
		return "unspecified", netip.Prefix{}, true
	}
	a = plain(a)
	for i := range specialRanges {
		if specialRanges[i].prefix.Contains(a) {
			return specialRanges[i].kind, specialRanges[i].prefix, true
		}
	}
	if inner, ok := embedded(a); ok {
		if kind, _, special = specialAddress(inner); special {
			// The network of such addresses is all of IPv4: only the address lists it.
			return kind, netip.PrefixFrom(a, a.BitLen()), true
		}
	}
	return "", netip.Prefix{}, false
}

// plain is a without what does not change where it leads: the mapping of IPv4
// into IPv6 (RFC 4291 section 2.5.5.2), and a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215, read as /96 networks
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291 section 2.5.5.1
)

// embedded returns the IPv4 address that a gateway makes of an IPv6 one.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), nat64Local.Contains(a), compatible.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	default:
		return netip.Addr{}, false
	}
}
