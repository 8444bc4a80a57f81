package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/culvertdev/culvert/internal/policy"
)

func TestSpecialAddress(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback", "::127.0.0.1": "loopback",
		"64:ff9b::127.0.0.1": "loopback", "64:ff9b:1::127.0.0.1": "loopback", "2002:7f00:1::": "loopback",
		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified", "::ffff:0.0.0.0": "unspecified",
		"169.254.0.1": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "febf::1": "link-local", "fec0::1": "link-local",
		"169.254.169.254": "metadata", "::ffff:169.254.169.254": "metadata", "64:ff9b::a9fe:a9fe": "metadata", "2002:a9fe:a9fe::1": "metadata",
		"169.254.170.2": "metadata", "169.254.170.23": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata", "192.0.0.192": "metadata",
		"fd00:ec2::254": "metadata", "fd00:ec2::23": "metadata", "fd20:ce::254": "metadata",
		"224.0.0.1": "multicast", "239.255.255.250": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast", "240.0.0.1": "reserved",
		"10.0.0.1": "", "192.168.0.1": "", "172.16.0.1": "", "8.8.8.8": "", "100.64.0.1": "", "fd00::1": "", "2001:db8::1": "", "64:ff9b::10.0.0.1": "", "::ffff:8.8.8.8": "",
	} {
		t.Run("N8: "+address+" is "+want, func(t *testing.T) {
			if got, special := policy.SpecialAddress(netip.MustParseAddr(address)); got != want || special != (want != "") {
				t.Errorf("got %q, %v", got, special)
			}
		})
	}
	t.Run("N8: no address is special", func(t *testing.T) {
		if _, special := policy.SpecialAddress(netip.Addr{}); !special {
			t.Error("it is not")
		}
	})
	t.Run("the sets of ports have names", func(t *testing.T) {
		if got := policy.PortSets(); !slices.Equal(got, []string{"consoles", "safe", "ssl"}) {
			t.Error(got)
		}
	})
}
