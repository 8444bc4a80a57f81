package route

import (
	"fmt"
	"strconv"
)

// maxLabel is the length of a DNS label, RFC 1123 section 2.1 and RFC 1035
// section 2.3.4.
const maxLabel = 63

// CheckCluster reports whether name can be the name of a cluster: a DNS-1123
// label as the name of an OCM ManagedCluster is, at most 63 lower-case letters,
// digits and hyphens that start and end with a letter or digit. So "-", "*" and
// names with a dot never name a cluster.
func CheckCluster(name string) error { return checkLabel("cluster", name) }

func checkLabel(field, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: empty, want a name", field)
	case len(s) > maxLabel:
		return fmt.Errorf("%s: %d characters, at most %d are allowed", field, len(s), maxLabel)
	}
	for i := range len(s) {
		if !isLowerAlnum(s[i]) && s[i] != '-' {
			return fmt.Errorf("%s: %q in %s, only lower-case letters, digits and '-' are allowed",
				field, s[i:i+1], quote(s))
		}
	}
	if s[0] == '-' || s[len(s)-1] == '-' {
		return fmt.Errorf("%s: %s starts or ends with '-', want a letter or digit there", field, quote(s))
	}
	return nil
}

// checkPort accepts what a Service port is called: nothing, a number without
// leading zeros, or a name (a DNS-1123 label, as ServicePort.name is).
func checkPort(s string) error {
	switch {
	case s == "":
		return nil
	case !allDigits(s):
		return checkLabel("port", s)
	case s[0] == '0':
		return fmt.Errorf("port: %s starts with 0, write the number without leading zeros", quote(s))
	}
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port: %s is not between 1 and 65535", quote(s))
	}
	return nil
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// quote bounds what of a caller's bytes gets into an error.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
