package route_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/route"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.0/16": "10.1.0.0/16", "10.1.0.7": "10.1.0.7/32", "0.0.0.0/0": "0.0.0.0/0",
		"2001:db8::/32": "2001:db8::/32", "2001:DB8::0001": "2001:db8::1/128",
	} {
		if got, err := route.ParseNetwork(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                       `"" is no network or address: want 10.1.0.0/16 or 10.1.0.7`,
		"10.1.0.0/33":            "is no network or address",
		"10.1/16":                "is no network or address",
		"db.example.com":         "is no network or address",
		"10.1.0.7/16":            "has bits beyond its length: write 10.1.0.0/16",
		"::ffff:10.1.0.0/112":    "is IPv4 inside of IPv6",
		"::ffff:10.1.0.7":        "is IPv4 inside of IPv6",
		"fe80::1%eth0":           "has a zone",
		"fe80::%eth0/64":         "has a zone",
		strings.Repeat("x", 200): "...",
	} {
		if got, err := route.ParseNetwork(text); err == nil || got != (netip.Prefix{}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", text, got, err, want)
		}
	}
}

// FuzzParseNetwork holds that what is taken has one spelling.
func FuzzParseNetwork(f *testing.F) {
	for _, seed := range []string{"10.1.0.0/16", "10.1.0.7", "::/0", "::ffff:1.2.3.4", "fe80::1%a", "/", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := route.ParseNetwork(text)
		if err != nil {
			return
		}
		if again, err := route.ParseNetwork(got.String()); err != nil || again != got || got != got.Masked() || got.Addr() != got.Addr().Unmap().WithZone("") {
			t.Fatalf("%q: %v, and then %v, %v", text, got, again, err)
		}
	})
}
