package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// services is the way to the services of the cluster's network.
type services struct {
	transports
	dialer *dialer
	zone   string
	roots  *roots
	listed []netip.Prefix
	ports  *ports
	// metrics counts connections; nil counts none.
	metrics *telemetry.Metrics
}

func newServices(d *dialer, zone string, roots *roots, cfg Config) *services {
	s := &services{dialer: d, zone: zone, roots: roots, listed: slices.Clone(cfg.SpecialAddresses), ports: newPorts(), metrics: cfg.Observer.Metrics}
	normal, upgrade := newTransport(true), newTransport(false)
	normal.DialContext, upgrade.DialContext = s.dialPlain, s.dialPlain
	normal.DialTLSContext, upgrade.DialTLSContext = s.dialHTTP2, s.dialHTTP1
	s.normal, s.upgrade = cfg.Observer.Transport(normal), cfg.Observer.Transport(upgrade)
	s.pools = append(s.pools, normal, upgrade)
	return s
}

// poolKey returns the host by which the transports pool connections:
// "8443.web.default.service". The scheme is a part of their own key. It has the
// number of the port, so that what was decided about is what is dialled.
func poolKey(t wire.Target, number uint16) string {
	return strings.Join([]string{strconv.Itoa(int(number)), t.Name, t.Namespace, "service"}, ".")
}

// parsePoolKey is the reverse for the address that the transport makes of it.
func parsePoolKey(addr, scheme string) (target wire.Target, number uint16, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return wire.Target{}, 0, fmt.Errorf("pool key: %w", err)
	}
	parts := strings.Split(host, ".")
	if len(parts) != 4 || parts[3] != "service" {
		return wire.Target{}, 0, fmt.Errorf("pool key: %q", host)
	}
	if number, err = portNumber(parts[0]); err != nil {
		return wire.Target{}, 0, fmt.Errorf("pool key: %w", err)
	}
	return wire.Service(parts[2], parts[1], parts[0], scheme), number, nil
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
	target, number, err := parsePoolKey(addr, "http")
	if err != nil {
		return nil, err
	}
	start := time.Now()
	conn, err := s.dial(ctx, target, number)
	s.metrics.Dialled(telemetry.KindService, err, time.Since(start))
	return conn, err
}

func (s *services) dialHTTP2(ctx context.Context, _, addr string) (net.Conn, error) {
	return s.dialTLS(ctx, addr, true)
}

func (s *services) dialHTTP1(ctx context.Context, _, addr string) (net.Conn, error) {
	return s.dialTLS(ctx, addr, false)
}

func (s *services) dialTLS(ctx context.Context, addr string, http2 bool) (net.Conn, error) {
	start := time.Now()
	conn, err := s.shakeHands(ctx, addr, http2)
	s.metrics.Dialled(telemetry.KindService, err, time.Since(start))
	return conn, err
}

func (s *services) shakeHands(ctx context.Context, addr string, http2 bool) (net.Conn, error) {
	target, number, err := parsePoolKey(addr, "https")
	if err != nil {
		return nil, err
	}
	pool, err := s.roots.get()
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopAgent, Op: "read service ca", Code: wire.CodeInternal, Target: target.String(), Err: err}
	}
	raw, err := s.dial(ctx, target, number)
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

// dial connects to a service by its name in the cluster's DNS.
func (s *services) dial(ctx context.Context, target wire.Target, number uint16) (net.Conn, error) {
	conn, err := s.dialer.reach(ctx, s.name(target), number, serviceJudge{target: target, listed: s.listed, count: s.metrics}.judge)
	if err != nil {
		return nil, withTarget(explainDial(err), target)
	}
	return conn, nil
}

// name is absolute, so that no search domain of the agent's machine is tried.
func (s *services) name(t wire.Target) string { return serverName(t) + "." + s.zone + "." }
