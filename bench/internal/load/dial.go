package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/bench/internal/service"
)

// Dialer opens one session through a tunnel to the service. It is safe for
// concurrent use. Half-close is measured where the connection has CloseWrite.
type Dialer func(ctx context.Context) (net.Conn, error)

// Port returns a Dialer of a plain TCP port that leads to the service.
func Port(address string) Dialer {
	return func(ctx context.Context) (net.Conn, error) { return dial(ctx, address) }
}

// narrowKey marks the context of sessions whose connection is narrow.
type narrowKey struct{}

// ethernetMSS is the largest segment of an ordinary network.
const ethernetMSS = 1460

// dial connects. On a narrow connection segments are those of an ordinary network,
// and the client's buffer is small: the loopback's own segments of 64 KiB make the
// kernel give the other end a send buffer of 4 MiB from the start, and a thousand
// stalled sessions would use up its memory for TCP before anything else shows.
func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if ctx.Value(narrowKey{}) != nil {
		d.ControlContext = func(_ context.Context, _, _ string, raw syscall.RawConn) error {
			var err error
			set := func(fd uintptr) {
				err = errors.Join(
					syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, ethernetMSS),
					syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, service.NarrowBuffer),
				)
			}
			return errors.Join(raw.Control(set), err)
		}
	}
	return d.DialContext(ctx, "tcp", address)
}

// Connect returns a Dialer of an HTTP proxy that takes CONNECT (RFC 9110, section
// 9.3.6) to target, the service's host:port.
func Connect(proxy, target string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx, proxy)
		if err != nil {
			return nil, err
		}
		if err := connect(ctx, c, target); err != nil {
			return nil, errors.Join(fmt.Errorf("CONNECT %s at %s: %w", target, proxy, err), c.Close())
		}
		return c, nil
	}
}

func connect(ctx context.Context, c net.Conn, target string) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) }) // fails on a closed connection only
	defer stop()
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy answered %s", resp.Status)
	}
	_ = resp.Body.Close() // an answer to CONNECT has none
	// The service never speaks first, so nothing of the session can be here.
	if r.Buffered() > 0 {
		return errors.New("the proxy sent bytes after its answer")
	}
	return nil
}

// Secure returns a Dialer of a TLS port of the service itself, without a tunnel.
func Secure(address string, config *tls.Config) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	}
}

// openTime bounds how long a session may take to open.
const openTime = 20 * time.Second

// open opens a session and asks for an operation. The first byte of an Echo must
// come back before it counts as open.
func (d Dialer) open(ctx context.Context, op byte, numbers ...uint64) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	c, err := d(ctx)
	if err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	if err := begin(ctx, c, service.Request(op, numbers...)); err != nil {
		return nil, errors.Join(fmt.Errorf("begin session: %w", err), c.Close())
	}
	return c, nil
}

func begin(ctx context.Context, c net.Conn, request []byte) error {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if request[0] != service.Echo {
		_, err := c.Write(request)
		return errors.Join(err, c.SetDeadline(time.Time{}))
	}
	if _, err := c.Write(append(request, 'x')); err != nil {
		return err
	}
	var back [1]byte
	if _, err := c.Read(back[:]); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// Probe opens a session and closes it again, until that works or ctx ends: a
// tunnel's ends may still be on their way to each other.
func (d Dialer) Probe(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		c, err := d.open(ctx, service.Echo)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}
