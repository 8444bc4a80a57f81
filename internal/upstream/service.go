package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// services is the way to the services of the cluster's network.
type services struct {
	transports
	dialer *dialer
	zone   string
	roots  *roots
	check  func(target wire.Target, number string) error
}

func newServices(d *dialer, zone string, roots *roots, check func(wire.Target, string) error) *services {
	s := &services{dialer: d, zone: zone, roots: roots, check: check}
	normal, upgrade := newTransport(true), newTransport(false)
	normal.DialContext, upgrade.DialContext = s.dialPlain, s.dialPlain
	normal.DialTLSContext, upgrade.DialTLSContext = s.dialHTTP2, s.dialHTTP1
	s.normal, s.upgrade, s.pools = normal, upgrade, append(s.pools, normal, upgrade)
	return s
}

// noPort stands for an empty port in a pool key: it is no DNS label.
const noPort = "-"

// poolKey returns the host by which the transports pool connections:
// "8443.web.default.service". The scheme is a part of their own key.
func poolKey(t wire.Target) string {
	port := t.Port
	if port == "" {
		port = noPort
	}
	return strings.Join([]string{port, t.Name, t.Namespace, "service"}, ".")
}

// parsePoolKey is the reverse for the address that the transport makes of it.
func parsePoolKey(addr, scheme string) (wire.Target, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return wire.Target{}, fmt.Errorf("pool key: %w", err)
	}
	parts := strings.Split(host, ".")
	if len(parts) != 4 || parts[3] != "service" {
		return wire.Target{}, fmt.Errorf("pool key: %q", host)
	}
	if parts[0] == noPort {
		parts[0] = ""
	}
	return wire.Service(parts[2], parts[1], parts[0], scheme), nil
}

// authority is the Host header for a service: its name, and its port where that
// is a number other than the scheme's own.
func authority(t wire.Target) string {
	name := serverName(t)
	if t.Port == "" || !isNumber(t.Port) || t.Port == defaultPort(t.Scheme) {
		return name
	}
	return net.JoinHostPort(name, t.Port)
}

// serverName is the name that the certificate of an HTTPS service must have.
func serverName(t wire.Target) string { return t.Name + "." + t.Namespace + ".svc" }

func defaultPort(scheme string) string {
	if scheme == "http" {
		return "80"
	}
	return "443"
}

func (s *services) dialPlain(ctx context.Context, _, addr string) (net.Conn, error) {
	target, err := parsePoolKey(addr, "http")
	if err != nil {
		return nil, err
	}
	return s.dial(ctx, target)
}

func (s *services) dialHTTP2(ctx context.Context, _, addr string) (net.Conn, error) {
	return s.dialTLS(ctx, addr, true)
}

func (s *services) dialHTTP1(ctx context.Context, _, addr string) (net.Conn, error) {
	return s.dialTLS(ctx, addr, false)
}

func (s *services) dialTLS(ctx context.Context, addr string, http2 bool) (net.Conn, error) {
	target, err := parsePoolKey(addr, "https")
	if err != nil {
		return nil, err
	}
	pool, err := s.roots.get()
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopAgent, Op: "read service ca", Code: wire.CodeInternal, Target: target.String(), Err: err}
	}
	raw, err := s.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.dialer.timeout)
	defer cancel()
	conn := tls.Client(raw, &tls.Config{
		ServerName: serverName(target),
		RootCAs:    pool,
		NextProtos: nextProtos(http2),
		MinVersion: minTLS,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		code := wire.CodeTLSFailure
		if isTimeout(err) {
			code = wire.CodeDeadlineExceeded
		}
		// The handshake's failure is what counts.
		_ = raw.Close()
		return nil, &fault.Error{Hop: wire.HopTarget, Op: "tls handshake", Code: code, Target: target.String(), Err: err}
	}
	return conn, nil
}

// dial connects to a service by its name in the cluster's DNS, with the port
// that the target names or that DNS gives.
func (s *services) dial(ctx context.Context, target wire.Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.dialer.timeout)
	defer cancel()
	// Absolute, so that no search domain of the agent's machine is tried.
	name := serverName(target) + "." + s.zone + "."
	port, err := s.port(ctx, name, target)
	if err != nil {
		return nil, withTarget(explainDial(err), target)
	}
	if err := s.check(target, port); err != nil {
		return nil, err
	}
	conn, err := s.dialer.dial(ctx, name, port)
	if err != nil {
		return nil, withTarget(explainDial(err), target)
	}
	return conn, nil
}

// port returns the number of the target's port. A named port has an SRV record
// _<port>._tcp.<service> (Kubernetes DNS specification, section 2.3.2). Without a
// port, the service's own name gives the records of all its ports in CoreDNS;
// where that is not exactly one number, the scheme decides.
func (s *services) port(ctx context.Context, name string, target wire.Target) (string, error) {
	if isNumber(target.Port) {
		return target.Port, nil
	}
	if target.Port == "" {
		_, records, err := s.dialer.resolver.LookupSRV(ctx, "", "", name)
		if err != nil || !onePort(records) {
			return defaultPort(target.Scheme), ctx.Err()
		}
		return strconv.Itoa(int(records[0].Port)), nil
	}
	_, records, err := s.dialer.resolver.LookupSRV(ctx, target.Port, "tcp", name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound || err == nil && len(records) == 0:
		return "", &fault.Error{Hop: wire.HopAgent, Op: "resolve", Code: wire.CodeNotFound,
			Err: fmt.Errorf("the cluster's DNS knows no port named %q of this service", target.Port)}
	case err != nil:
		return "", err
	default:
		return strconv.Itoa(int(records[0].Port)), nil
	}
}

func onePort(records []*net.SRV) bool {
	for _, record := range records {
		if record.Port != records[0].Port {
			return false
		}
	}
	return len(records) > 0
}
