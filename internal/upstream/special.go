package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/culvertdev/culvert/internal/policy"
)

// carriers are special to an agent beside [policy.SpecialAddress]: some machine on
// the way may take an IPv4 address out of them that is special, and nobody needs
// them to reach a service.
var carriers = []struct {
	kind   string
	prefix netip.Prefix
}{
	{"6to4", netip.MustParsePrefix("2002::/16")},                  // RFC 3056, ended by RFC 7526
	{"Teredo", netip.MustParsePrefix("2001::/32")},                // RFC 4380
	{"IPv4-translated", netip.MustParsePrefix("::ffff:0:0:0/96")}, // RFC 2765
	{"IPv4-compatible", netip.MustParsePrefix("::/96")},           // RFC 4291 section 2.5.5.1
	{"local NAT64", netip.MustParsePrefix("64:ff9b:1::/48")},      // RFC 8215, with IPv4 anywhere in it
	{"metadata", netip.MustParsePrefix("fd00:ec2::/32")},          // EKS has credentials at ::23
}

// nat64 is the well-known prefix of RFC 6052: clusters without IPv4 reach it so.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// judged returns the address as rules see it: an IPv4 address for one that is
// mapped into IPv6 or that NAT64 leads to, and never a zone.
func judged(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

func allJudged(addrs []netip.Addr) []netip.Addr {
	all := make([]netip.Addr, len(addrs))
	for i, addr := range addrs {
		all[i] = judged(addr)
	}
	return all
}

// specialKind says what is special about a judged address, or "".
func specialKind(a netip.Addr) string {
	if kind, special := policy.SpecialAddress(a); special {
		return kind
	}
	return carrierKind(a)
}

// carrierKind is specialKind for what policies do not know as special.
func carrierKind(a netip.Addr) string {
	if _, special := policy.SpecialAddress(a); special {
		return ""
	}
	for _, c := range carriers {
		if c.prefix.Contains(a) {
			return c.kind
		}
	}
	return ""
}

// listed tells whether one of the prefixes has a judged address and is of its
// kind: link-local as a whole does not mean the metadata service in it.
func listed(prefixes []netip.Prefix, a netip.Addr, kind string) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) && prefixKind(p) == kind })
}

// checkSpecialPrefix reports why a prefix cannot be in [Config.SpecialAddresses].
func checkSpecialPrefix(p netip.Prefix) error {
	if !p.IsValid() {
		return errors.New("no valid prefix, want one such as 127.0.0.0/8")
	}
	if p != p.Masked() || judged(p.Addr()) != p.Addr() {
		return fmt.Errorf("%v: write it without bits beyond its length, and IPv4 as IPv4", p)
	}
	if prefixKind(p) == "" {
		return fmt.Errorf("%v is not inside of one range of special addresses (loopback, link-local, metadata and the like); ordinary ones need no entry", p)
	}
	return nil
}

// prefixKind says what is special about a whole prefix, or "".
func prefixKind(p netip.Prefix) string {
	if kind := specialKind(p.Addr()); kind == specialKind(last(p)) {
		return kind
	}
	for _, c := range carriers {
		if p.Bits() >= c.prefix.Bits() && c.prefix.Contains(p.Addr()) {
			return c.kind
		}
	}
	return ""
}

// last returns the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // of a length that an address has
	return a
}
