package route

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// maxHost is the length of a domain name in text, RFC 1035 section 3.1.
const maxHost = 253

// CheckTarget reports whether t is a target in the one spelling that this
// package gives. The agent calls it on what arrives in OPEN before its policy
// looks at the names. An error is a [*fault.Error] of the agent with
// [wire.CodeInvalidTarget] that names the field.
func CheckTarget(t wire.Target) error {
	if err := checkTarget(t); err != nil {
		return &fault.Error{Hop: wire.HopAgent, Op: "check target", Code: wire.CodeInvalidTarget, Err: err}
	}
	return nil
}

func checkTarget(t wire.Target) error {
	switch t.Kind {
	case wire.TargetKubernetesAPI:
		if t != wire.KubernetesAPI() {
			return errors.New("target: the Kubernetes API takes no name, port or scheme")
		}
		return nil
	case wire.TargetKubernetesTLS:
		if t != wire.KubernetesTLS() {
			return errors.New("target: the Kubernetes API takes no name, port or scheme")
		}
		return nil
	case wire.TargetService:
		if t.Host != "" || t.PortNumber != 0 {
			return errors.New("target: a service takes no host")
		}
		return cmp.Or(checkService(t.Namespace, t.Name, t.Port), checkScheme(t.Scheme))
	case wire.TargetAddress:
		if t.Namespace != "" || t.Name != "" || t.Port != "" || t.Scheme != "" {
			return errors.New("target: an address takes no namespace, name or scheme")
		}
		if t.PortNumber == 0 {
			return errors.New("port: 0, want a number between 1 and 65535")
		}
		return checkHost(t.Host)
	default:
		return errors.New("target: of a kind that this version does not know, update the older side")
	}
}

func checkService(namespace, name, port string) error {
	return cmp.Or(checkLabel("namespace", namespace), checkLabel("service", name), checkPort(port))
}

func checkScheme(s string) error {
	if s != "" && s != "http" && s != "https" {
		return fmt.Errorf("scheme: %s, want %q or %q", quote(s), "http", "https")
	}
	return nil
}

// ParseAddress parses "host:port" into a raw TCP target. Upper case and one
// trailing dot of a name are normalised, as are spellings of an IP address; a
// zone, a port name and numeric hosts that are no IP address (such as "127.1",
// which some resolvers read as one) are refused. An error says what is wrong
// with which field; it is not a [*fault.Error].
func ParseAddress(hostport string) (wire.Target, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return wire.Target{}, fmt.Errorf("address: %s, want host:port", quote(hostport))
	}
	if !allDigits(port) {
		return wire.Target{}, fmt.Errorf("port: %s, want a number between 1 and 65535", quote(port))
	}
	if err := checkPort(port); err != nil {
		return wire.Target{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return wire.Target{}, fmt.Errorf("port: %s, want a number between 1 and 65535", quote(port))
	}
	host = canonicalHost(host)
	if err := checkHost(host); err != nil {
		return wire.Target{}, err
	}
	return wire.Address(host, uint16(n)), nil
}

func canonicalHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	host = strings.TrimSuffix(host, ".")
	lower := []byte(host)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}

// checkHost accepts canonical IP addresses without a zone and lower-case domain
// names. Underscores are allowed within, since names in use have them.
func checkHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return fmt.Errorf("host: %s has a zone, which means nothing on another machine", quote(host))
		}
		if c := ip.Unmap().String(); c != host {
			return fmt.Errorf("host: %s, write it as %q", quote(host), c)
		}
		return nil
	}
	if host == "" || len(host) > maxHost {
		return fmt.Errorf("host: %d characters, want 1 to %d", len(host), maxHost)
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if err := checkLabel("host", strings.ReplaceAll(label, "_", "x")); err != nil {
			return fmt.Errorf("host: %s is neither an IP address nor a lower-case domain name", quote(host))
		}
	}
	// As URL parsers do (https://url.spec.whatwg.org/#ends-in-a-number-checker):
	// a name that ends in a number is meant as an IPv4 address, and
	// getaddrinfo would read 127.1 or 0x7f000001 as one.
	last := labels[len(labels)-1]
	if hex, ok := strings.CutPrefix(last, "0x"); allDigits(last) || ok && strings.Trim(hex, "0123456789abcdef") == "" {
		return fmt.Errorf("host: %s ends in a number and is no IPv4 address", quote(host))
	}
	return nil
}
