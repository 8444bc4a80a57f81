package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// fallbackDelay is how long addresses of the preferred family are tried before
	// those of the other are, too (RFC 8305 section 8; net.Dialer has the same).
	fallbackDelay = 300 * time.Millisecond
	// leastShare is what one of several addresses gets of the time at least.
	leastShare = 2 * time.Second
)

// Dial connects to the API server for TLS of the caller's own, or to a raw TCP
// address, whose name is resolved here, once: the
// addresses that it gives are held against the rules, and those that pass are
// connected to. It takes at most the configured time, or less where ctx ends
// before. The caller owns the connection. The error is a [*fault.Error]: of the
// agent for a refusal or a name that does not resolve, else of the target. Dial
// is safe for concurrent use.
func (u *Upstream) Dial(ctx context.Context, target wire.Target) (*Conn, error) {
	start := time.Now()
	conn, err := u.dial(ctx, target)
	u.note(err, true)
	if f := fault.As(err); f == nil || f.Op != opPolicy {
		u.cfg.Observer.Metrics.Dialled(telemetry.KindOf(target), err, time.Since(start))
	}
	return conn, err
}

func (u *Upstream) dial(ctx context.Context, target wire.Target) (*Conn, error) {
	if err := u.check(target); err != nil {
		return nil, err
	}
	if target.Kind == wire.TargetKubernetesTLS {
		conn, err := u.kubernetes.dial(ctx)
		if err != nil {
			return nil, withTarget(explainDial(err), target)
		}
		return conn, nil
	}
	if target.Kind != wire.TargetAddress {
		return nil, &fault.Error{Hop: wire.HopAgent, Op: "dial", Code: wire.CodeInvalidTarget, Target: target.String(),
			Err: errors.New("only an address is reached with raw bytes")}
	}
	conn, err := u.dialer.reach(ctx, target.Host, target.PortNumber, addressJudge{u: u, target: target}.judge)
	if err != nil {
		return nil, withTarget(explainDial(err), target)
	}
	return &Conn{TCPConn: conn}, nil
}

// dialer makes TCP connections with the agent's resolver and time limit.
type dialer struct {
	resolver *net.Resolver
	timeout  time.Duration
	// dials counts what dialContext connects; nil counts nothing.
	dials *telemetry.Metrics
}

func newDialer(dnsServer string, timeout time.Duration) *dialer {
	return &dialer{
		resolver: &net.Resolver{PreferGo: dnsServer != "", Dial: dnsDialer{server: dnsServer}.dial},
		timeout:  timeout,
	}
}

// dialContext connects to what the owner configured, for http.Transport: nothing
// that the hub says has a part in addr.
func (d *dialer) dialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	start := time.Now()
	nd := net.Dialer{Resolver: d.resolver, Timeout: d.timeout}
	conn, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		d.dials.Dialled(telemetry.KindKubernetes, explainDial(err), time.Since(start))
		return nil, err
	}
	d.dials.Dialled(telemetry.KindKubernetes, nil, time.Since(start))
	return conn, nil
}

// reach connects to host, a name or an address, at one of the addresses that
// judge leaves. The name is resolved once. The time limit covers all of it.
func (d *dialer) reach(ctx context.Context, host string, port uint16, judge func(context.Context, []netip.Addr) ([]netip.Addr, error)) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	addrs, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if addrs, err = judge(ctx, addrs); err != nil {
		return nil, err
	}
	return d.connect(ctx, addrs, port)
}

// lookup returns the addresses of host in the order of RFC 6724, at least one.
func (d *dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// attempt is what came of the addresses of one family.
type attempt struct {
	conn *net.TCPConn
	err  error
}

// connect connects to the first of addrs that answers. Those of the other family
// than the first one's are tried beside when that takes long.
func (d *dialer) connect(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	preferred, others := byFamily(addrs)
	if len(others) == 0 {
		return d.connectInTurn(ctx, preferred, port)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attempts := make(chan attempt)
	go d.try(ctx, preferred, port, attempts)
	delay := time.NewTimer(fallbackDelay)
	defer delay.Stop()
	var failed error
	running := 1
	for running > 0 {
		select {
		case <-delay.C:
		case a := <-attempts:
			running--
			if a.err == nil {
				cancel()
				closeLate(attempts, running)
				return a.conn, nil
			}
			failed = cmp.Or(failed, a.err)
		}
		if others != nil {
			go d.try(ctx, others, port, attempts)
			running++
			others = nil
		}
	}
	return nil, failed
}

// closeLate waits for attempts that were cancelled, and closes what they made.
func closeLate(attempts <-chan attempt, running int) {
	for range running {
		if late := <-attempts; late.conn != nil {
			// Nobody has used it.
			_ = late.conn.Close()
		}
	}
}

// try runs connectInTurn. It ends when connect, which waits for it, has its
// result.
func (d *dialer) try(ctx context.Context, addrs []netip.Addr, port uint16, to chan<- attempt) {
	conn, err := d.connectInTurn(ctx, addrs, port)
	to <- attempt{conn: conn, err: err}
}

// connectInTurn tries one address after the other. Each gets its share of the
// time that is left. The error is that of the first.
func (d *dialer) connectInTurn(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	var failed error
	for i, a := range addrs {
		nd := net.Dialer{}
		if deadline, ok := ctx.Deadline(); ok {
			left := time.Until(deadline)
			nd.Timeout = min(left, max(left/time.Duration(len(addrs)-i), leastShare))
		}
		// An address and no name: what was judged is what is dialled.
		conn, err := nd.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			tcp, ok := conn.(*net.TCPConn)
			if !ok {
				return nil, errors.Join(fmt.Errorf("dialled a %T where a TCP connection is wanted", conn), conn.Close())
			}
			return tcp, nil
		}
		failed = cmp.Or(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// byFamily parts addrs into those of the first one's family and the others.
func byFamily(addrs []netip.Addr) (preferred, others []netip.Addr) {
	for _, a := range addrs {
		if a.Unmap().Is4() == addrs[0].Unmap().Is4() {
			preferred = append(preferred, a)
		} else {
			others = append(others, a)
		}
	}
	return preferred, others
}

// portNumber returns the number of a checked port.
func portNumber(port string) (uint16, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	return uint16(n), err
}

// dnsDialer reaches one DNS server whatever server the resolver names, or with
// an empty one the server it names.
type dnsDialer struct{ server string }

func (d dnsDialer) dial(ctx context.Context, network, server string) (net.Conn, error) {
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, network, cmp.Or(d.server, server))
	if err != nil {
		return nil, err
	}
	// The resolver waits out its own 5 s otherwise, long after ctx ended. It
	// always ends ctx when it is done with conn.
	context.AfterFunc(ctx, dnsConn{conn}.end)
	return conn, nil
}

// dnsConn is a connection to a DNS server.
type dnsConn struct{ net.Conn }

// end closes the connection, which mostly is closed already.
func (c dnsConn) end() { _ = c.Close() }
