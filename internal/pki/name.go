package pki

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Lengths of names, RFC 1035 section 2.3.4: a label, and a name in text form
// without the root's dot.
const (
	maxLabel = 63
	maxName  = 253
)

// CheckTrustDomain reports whether name can be a trust domain: a DNS name in
// lower case. SPIFFE also allows underscores; Culvert does not, so that a trust
// domain can be delegated in DNS.
func CheckTrustDomain(name string) error {
	return checkDNSName("trust domain", name)
}

func checkDNSName(field, name string) error {
	const want = "want labels of lower-case letters, digits and '-', joined by dots"
	switch {
	case name == "":
		return fmt.Errorf("%s: empty, want a DNS name", field)
	case len(name) > maxName:
		return fmt.Errorf("%s: %d characters, at most %d are allowed", field, len(name), maxName)
	}
	last := ""
	for last = range strings.SplitSeq(name, ".") {
		if !isLabel(last) {
			return fmt.Errorf("%s: %s is not a DNS name, %s", field, quote(name), want)
		}
	}
	if strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%s: %s ends in a number as an IP address does, want a DNS name", field, quote(name))
	}
	return nil
}

// isLabel is a DNS label as RFC 1123 section 2.1 has it, in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// servingNames are the names of a serving certificate in one spelling: sorted,
// each once, DNS names in lower case.
type servingNames struct {
	dns []string
	ips []netip.Addr
}

func parseServingNames(names []string) (servingNames, error) {
	var s servingNames
	if len(names) == 0 {
		return s, fmt.Errorf("tls name: none given, want the DNS names or IP addresses that clients use for the hub")
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			if ip.Zone() != "" {
				return s, fmt.Errorf("tls name: %s has a zone, which a certificate cannot carry: leave out what follows '%%'", quote(name))
			}
			s.ips = append(s.ips, ip.Unmap())
			continue
		}
		dns := strings.ToLower(name)
		if err := checkDNSName("tls name", strings.TrimPrefix(dns, "*.")); err != nil {
			return s, err
		}
		s.dns = append(s.dns, dns)
	}
	slices.Sort(s.dns)
	s.dns = slices.Compact(s.dns)
	slices.SortFunc(s.ips, netip.Addr.Compare)
	s.ips = slices.Compact(s.ips)
	return s, nil
}

func (s servingNames) String() string {
	names := slices.Clone(s.dns)
	for _, ip := range s.ips {
		names = append(names, ip.String())
	}
	return strings.Join(names, ",")
}

func (s servingNames) equal(t servingNames) bool {
	return slices.Equal(s.dns, t.dns) && slices.Equal(s.ips, t.ips)
}

// quote bounds what of a peer's bytes gets into an error, and keeps it printable.
func quote(s string) string {
	const most = 128
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
