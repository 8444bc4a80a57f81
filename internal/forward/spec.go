package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/culvertdev/culvert/internal/route"
)

// loopback is where listeners are unless a spec says otherwise.
const loopback = "127.0.0.1"

// unixPrefix begins a spec whose listener is a Unix socket.
const unixPrefix = "unix:"

// maxSocketPath is the longest path of a Unix socket, without its closing zero
// (unix(7); elsewhere it is a few bytes less, and listening says so).
const maxSocketPath = 107

// Destination is an address in a cluster.
type Destination struct {
	Cluster string `json:"cluster"`
	// Address is host:port, resolved by the cluster's agent.
	Address string `json:"target"`
}

// String returns "cluster host:port".
func (d Destination) String() string { return d.Cluster + " " + d.Address }

// Spec is one local listener and where its connections go.
type Spec struct {
	// Network is "tcp" or "unix", and Listen an address of it: host:port with port 0 for
	// a free one, or the path of the socket.
	Network, Listen string
	To              Destination
}

// ParseSpec parses what a user writes:
//
//	[CLUSTER/][[BIND:]PORT:]HOST:PORT
//	[CLUSTER/]unix:PATH:HOST:PORT
//
// Without PORT the local port is that of the target, and without BIND the listener is on
// loopback; BIND is an IP address, localhost, or * for every address. IPv6 addresses
// stand in brackets. cluster is for specs that name none.
func ParseSpec(text, cluster string) (Spec, error) {
	s, err := parseSpec(text, cluster)
	if err != nil {
		return Spec{}, fmt.Errorf("forward %q: %w", text, err)
	}
	return s, nil
}

func parseSpec(text, cluster string) (Spec, error) {
	rest := text
	if before, after, ok := strings.Cut(text, "/"); ok && !strings.Contains(before, ":") {
		cluster, rest = before, after
	}
	if cluster == "" {
		return Spec{}, errors.New("cluster: none is named: give it as the first argument, or as CLUSTER/ before the ports")
	}
	if err := route.CheckCluster(cluster); err != nil {
		return Spec{}, err
	}
	local, address := splitTarget(rest)
	target, err := route.ParseAddress(address)
	if err != nil {
		return Spec{}, fmt.Errorf("%w; the form is [CLUSTER/][[BIND:]PORT:]HOST:PORT", err)
	}
	port := strconv.Itoa(int(target.PortNumber))
	s := Spec{Network: "tcp", To: Destination{Cluster: cluster, Address: net.JoinHostPort(target.Host, port)}}
	if path, ok := strings.CutPrefix(local, unixPrefix); ok {
		s.Network, s.Listen = "unix", path
		return s, checkSocket(path)
	}
	if local == "" {
		local = port
	}
	s.Listen, err = listenAddress(local)
	return s, err
}

// splitTarget cuts "local:host:port" before the host.
func splitTarget(text string) (local, target string) {
	end := strings.LastIndexByte(text, ':')
	if end < 0 {
		return "", text
	}
	start := strings.LastIndexByte(text[:end], ':')
	if strings.HasSuffix(text[:end], "]") { // an IPv6 address has colons of its own
		start = strings.LastIndexByte(text[:end], '[') - 1
	}
	if start < 0 || text[start] != ':' { // "5432[::1]:22" is neither
		return "", text
	}
	return text[:start], text[start+1:]
}

// listenAddress is [BIND:]PORT as package net wants it.
func listenAddress(local string) (string, error) {
	bind, port := loopback, local
	if i := strings.LastIndexByte(local, ':'); i >= 0 {
		bind, port = local[:i], local[i+1:]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return "", fmt.Errorf("local port: %q is not a number from 0, for a free one, to 65535", port)
	}
	bind, bracket := strings.CutPrefix(bind, "[")
	if bracket {
		var closed bool
		if bind, closed = strings.CutSuffix(bind, "]"); !closed {
			return "", fmt.Errorf("bind address: %q has no closing bracket", bind)
		}
	}
	switch bind {
	case "localhost":
		bind = loopback
	case "*":
		bind = ""
	default:
		ip, err := netip.ParseAddr(bind)
		if err != nil || ip.Is6() != bracket {
			return "", fmt.Errorf("bind address: %q is no IP address (IPv6 in brackets), localhost, or *", bind)
		}
	}
	return net.JoinHostPort(bind, port), nil
}

func checkSocket(path string) error {
	if path == "" || len(path) > maxSocketPath || strings.ContainsRune(path, 0) || filepath.Base(path) == "/" {
		return fmt.Errorf("socket: a path of %d bytes, want 1 to %d", len(path), maxSocketPath)
	}
	return nil
}

// Exposed tells whether other machines may reach the listener.
func Exposed(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}
