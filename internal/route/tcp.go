package route

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// TCPPrefix begins the paths of raw TCP targets among the hub's own paths.
const TCPPrefix = "/-/tcp/"

// IsTCP reports whether the path of r is one that [ParseTCP] is for. It has one
// spelling: with an escape in the prefix it is another path of the hub's own.
func IsTCP(r *http.Request) bool {
	path, err := RequestPath(r, wire.HopHub)
	return err == nil && strings.HasPrefix(path, TCPPrefix)
}

// ParseTCP parses the path of a raw TCP target, still escaped:
//
//	/-/tcp/<cluster>/<host>:<port>
//
// An IPv6 address stands in brackets, and clients that escape brackets or the
// colon may do so; no other escape is taken. The error is a [*fault.Error] of the
// hub with [wire.CodeInvalidTarget]; the cluster and the target are in the one
// spelling of this package.
func ParseTCP(escapedPath string) (cluster string, target wire.Target, err error) {
	cluster, target, err = parseTCP(escapedPath)
	if err != nil {
		return "", wire.Target{}, &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	return cluster, target, nil
}

var addressEscapes = strings.NewReplacer("%3A", ":", "%3a", ":", "%5B", "[", "%5b", "[", "%5D", "]", "%5d", "]")

func parseTCP(path string) (string, wire.Target, error) {
	rest, ok := strings.CutPrefix(path, TCPPrefix)
	cluster, address, slash := strings.Cut(rest, "/")
	if !ok || !slash {
		return "", wire.Target{}, fmt.Errorf("path: %s, want %s<cluster>/<host>:<port>", quote(path), TCPPrefix)
	}
	if err := CheckCluster(cluster); err != nil {
		return "", wire.Target{}, fmt.Errorf("path: %w", err)
	}
	target, err := ParseAddress(addressEscapes.Replace(address))
	if err != nil {
		return "", wire.Target{}, fmt.Errorf("path: %w", err)
	}
	return cluster, target, nil
}

// Authority returns the raw TCP target that r, a CONNECT, asks for: the authority
// of its request target (RFC 9110 section 9.3.6, RFC 9113 section 8.5), which the
// Host field has no part in. The error is a [*fault.Error] of the hub with
// [wire.CodeInvalidTarget].
func Authority(r *http.Request) (wire.Target, error) {
	target, err := authority(r)
	if err != nil {
		return wire.Target{}, &fault.Error{Hop: wire.HopHub, Op: "read request target", Code: wire.CodeInvalidTarget, Err: err}
	}
	return target, nil
}

func authority(r *http.Request) (wire.Target, error) {
	switch {
	case r.Method != http.MethodConnect:
		return wire.Target{}, errors.New("method: want CONNECT host:port")
	case r.Header.Get(":protocol") != "":
		// Extended CONNECT (RFC 8441) has a path and means something else.
		return wire.Target{}, errors.New("method: CONNECT with :protocol is not served here, use CONNECT host:port")
	}
	return ParseAddress(r.RequestURI)
}

// ParseHost returns host in the one spelling of this package, as [ParseAddress]
// does: a lower-case domain name or a canonical IP address. The error is not a
// [*fault.Error].
func ParseHost(host string) (string, error) {
	host = canonicalHost(host)
	if err := checkHost(host); err != nil {
		return "", err
	}
	return host, nil
}

// IsAddress reports whether a host of this package is an IP address.
func IsAddress(host string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(host)
	return ip, err == nil
}
