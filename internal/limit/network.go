package limit

import (
	"net/netip"
)

// Network returns the key of a remote address, IP:port: an IPv4 address, or the
// /64 of IPv6 that one host has to itself. Whatever is no such address has the
// key "", which those share.
func Network(remote string) string {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	ip := a.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ""
	}
	return prefix.String()
}
