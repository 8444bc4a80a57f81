package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Dial connects to a raw TCP address, whose name is resolved here. It takes at
// most the configured time, or less where ctx ends before. The caller owns the
// connection. The error is a [*fault.Error]: of the agent for a refusal or a name
// that does not resolve, else of the target. Dial is safe for concurrent use.
func (u *Upstream) Dial(ctx context.Context, target wire.Target) (*net.TCPConn, error) {
	if err := u.Check(target); err != nil {
		return nil, err
	}
	if target.Kind != wire.TargetAddress {
		return nil, &fault.Error{Hop: wire.HopAgent, Op: "dial", Code: wire.CodeInvalidTarget, Target: target.String(),
			Err: errors.New("only an address is reached with raw bytes")}
	}
	conn, err := u.dialer.dial(ctx, target.Host, strconv.Itoa(int(target.PortNumber)))
	if err != nil {
		return nil, withTarget(explainDial(err), target)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("dialled a %T where a TCP connection is wanted", conn), conn.Close())
	}
	return tcp, nil
}

// dialer makes TCP connections with the agent's resolver and time limit.
type dialer struct {
	resolver *net.Resolver
	timeout  time.Duration
}

func newDialer(dnsServer string, timeout time.Duration) *dialer {
	return &dialer{
		resolver: &net.Resolver{PreferGo: dnsServer != "", Dial: dnsDialer{server: dnsServer}.dial},
		timeout:  timeout,
	}
}

// dial connects to host and port. The time limit covers the name, too.
func (d *dialer) dial(ctx context.Context, host, port string) (net.Conn, error) {
	nd := net.Dialer{Resolver: d.resolver, Timeout: d.timeout}
	return nd.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
}

// dialContext is dial for http.Transport.
func (d *dialer) dialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return d.dial(ctx, host, port)
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
