package upstream_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// forbidden are the addresses that are refused to a policy which allows
// everything by name and by network.
var forbidden = []string{
	"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.170.2", "169.254.1.1", "100.100.100.200",
	"168.63.129.16", "192.0.0.192", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
	"::1", "::", "fe80::1", "febf::1", "ff02::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
}

// spellings returns how an address can be written in a URL, without the port.
func spellings(a netip.Addr) []string {
	if a.Is4() {
		return spellings4(a)
	}
	return spellings6(a)
}

func spellings4(a netip.Addr) []string {
	b := a.As4()
	n := binary.BigEndian.Uint32(b[:])
	hi, lo := n>>16, n&0xffff
	dotted := a.String()
	return []string{
		dotted,
		dotted + ".",
		strconv.Itoa(int(n)),
		fmt.Sprintf("%#x", n),
		fmt.Sprintf("%#X", n),
		fmt.Sprintf("%#o", n),
		fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("%#x.%#x.%#x.%#x", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("%d.%d", b[0], n&0xffffff),
		fmt.Sprintf("%d.%d.%d", b[0], b[1], lo),
		fmt.Sprintf("%%3%c%s", dotted[0], dotted[1:]), // percent-encoded
		strings.Map(fullWidth, dotted),
		strings.ReplaceAll(dotted, ".", "。"),
		"[::ffff:" + dotted + "]",
		fmt.Sprintf("[::ffff:%x:%x]", hi, lo),
		fmt.Sprintf("[::FFFF:%X:%X]", hi, lo),
		fmt.Sprintf("[0:0:0:0:0:ffff:%04x:%04x]", hi, lo),
		"[::ffff:" + dotted + "%25eth0]",
		fmt.Sprintf("[64:ff9b::%x:%x]", hi, lo),
		"[64:ff9b::" + dotted + "]",
		fmt.Sprintf("[64:ff9b:1::%x:%x]", hi, lo),
		fmt.Sprintf("[64:ff9b:1:%x:%x:%x::]", hi, lo>>8, lo<<8&0xffff),
		fmt.Sprintf("[2002:%x:%x::1]", hi, lo),
		fmt.Sprintf("[::%x:%x]", hi, lo),
		fmt.Sprintf("[::ffff:0:%x:%x]", hi, lo),
		fmt.Sprintf("[2001:0:1:2:3:4:%x:%x]", ^hi&0xffff, ^lo&0xffff),
	}
}

func fullWidth(r rune) rune {
	if '0' <= r && r <= '9' {
		return r - '0' + '０'
	}
	return r
}

func spellings6(a netip.Addr) []string {
	b := a.As16()
	var short []string
	for i := 0; i < 16; i += 2 {
		short = append(short, fmt.Sprintf("%x", binary.BigEndian.Uint16(b[i:])))
	}
	tail := netip.AddrFrom4([4]byte(b[12:])).String()
	all := []string{
		a.String(),
		strings.ToUpper(a.String()),
		a.StringExpanded(),
		strings.ToUpper(a.StringExpanded()),
		strings.Join(short, ":"),
		strings.ToUpper(strings.Join(short, ":")),
		strings.Join(short[:6], ":") + ":" + tail,
		strings.ToUpper(strings.Join(short[:6], ":")) + ":" + tail,
		a.String() + "%25eth0",
		a.StringExpanded() + "%251",
		strings.ToUpper(a.String()) + "%25lo",
	}
	for i, s := range all {
		all[i] = "[" + s + "]"
	}
	return append(all, a.String(), a.String()+".", strings.ReplaceAll(a.String(), ":", "-")+".ipv6-literal.net")
}

// carried returns the addresses that a record can have for a.
func carried(a netip.Addr) []netip.Addr {
	if !a.Is4() {
		return []netip.Addr{a}
	}
	all := []netip.Addr{a}
	for _, s := range spellings4(a) {
		if inner, isIPv6 := strings.CutPrefix(s, "["); isIPv6 && !strings.Contains(s, "%") {
			all = append(all, netip.MustParseAddr(strings.TrimSuffix(inner, "]")))
		}
	}
	return all
}

func TestSpellings(t *testing.T) {
	for _, text := range forbidden {
		all := spellings(netip.MustParseAddr(text))
		slices.Sort(all)
		if n := len(slices.Compact(all)); n < 10 {
			t.Errorf("N8: only %d spellings of %s differ", n, text)
		}
	}
}
