package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// openTime bounds the opening of a session where the caller's context does not.
const openTime = 30 * time.Second

// DialContext opens a connection to a TCP address in a cluster. network is "tcp", "tcp4"
// or "tcp6"; address is host:port, resolved by the cluster's agent. It waits for the
// agent's answer, one round trip: what is wrong is the error, an [*Error].
//
// The connection is a complete [net.Conn] with CloseWrite and CloseRead. Its end is told
// from its failure as with TCP: a peer that was cut is no io.EOF.
func (c *Client) DialContext(ctx context.Context, cluster, network, address string) (net.Conn, error) {
	to, req, err := request(cluster, network, address)
	if err != nil {
		return nil, err
	}
	s, err := c.open(ctx, to, req)
	if err != nil {
		return nil, err
	}
	return &conn{Session: s, to: to}, nil
}

// DialEarly is DialContext without the wait: what is written first travels with the
// open, so that its answer is there after one round trip. It is for protocols whose client
// speaks first, as HTTP, gRPC, PostgreSQL and Redis do. Where the connection cannot be
// opened, the first Read or Write says so, with the same [*Error]. Close delivers what was
// written also where the target is not connected yet. The context bounds the wait for a
// connection to the hub alone.
func (c *Client) DialEarly(ctx context.Context, cluster, network, address string) (net.Conn, error) {
	to, req, err := request(cluster, network, address)
	if err != nil {
		return nil, err
	}
	link, err := c.way.link(ctx)
	if err != nil {
		return nil, c.about(to, err)
	}
	return newEarly(c, to, req, link.LocalAddr()), nil
}

// Dialer returns DialContext for one cluster.
func (c *Client) Dialer(cluster string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.DialContext(ctx, cluster, network, address)
	}
}

// EarlyDialer returns DialEarly for one cluster.
func (c *Client) EarlyDialer(cluster string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.DialEarly(ctx, cluster, network, address)
	}
}

// DialerFor returns DialEarly for one cluster and TCP, as grpc.WithContextDialer and some
// database drivers want it.
func (c *Client) DialerFor(cluster string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		return c.DialEarly(ctx, cluster, "tcp", address)
	}
}

// request checks what is to be dialled.
func request(cluster, network, address string) (Addr, mux.Request, error) {
	to := Addr{Cluster: cluster, Address: address}
	invalid := func(err error) (Addr, mux.Request, error) {
		return to, mux.Request{}, &Error{Op: "dial", Code: InvalidTarget, Hop: HopClient, Cluster: cluster, Target: address, Err: err}
	}
	if err := route.CheckCluster(cluster); err != nil {
		return invalid(err)
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return invalid(fmt.Errorf("network %q where tcp is wanted", network))
	}
	target, err := route.ParseAddress(address)
	if err != nil {
		return invalid(err)
	}
	if ip, ok := route.IsAddress(target.Host); ok && (network == "tcp4") != ip.Unmap().Is4() && network != "tcp" {
		return invalid(fmt.Errorf("the address is not one of %s", network))
	}
	return to, mux.Request{Cluster: cluster, Target: target, RequestID: rand.Text()}, nil
}

// about adds to an error where it was going to.
func (c *Client) about(to Addr, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Cluster == "" {
		whole := *e
		whole.Cluster, whole.Target = to.Cluster, to.Address
		return &whole
	}
	return err
}

// open opens a session, on another link where one is about to end.
func (c *Client) open(ctx context.Context, to Addr, req mux.Request) (*mux.Session, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for attempt := 0; ; attempt++ {
		link, err := c.way.link(ctx)
		if err != nil {
			return nil, c.about(to, err)
		}
		s, err := link.Open(ctx, req)
		if err == nil {
			return s, nil
		}
		again, e := c.opened(link, to, req, err)
		if !again || attempt == maxAttempts {
			return nil, e
		}
	}
}

// maxAttempts is how often an open is tried again: links end when hubs and tokens do.
const maxAttempts = 2

// opened says why a session was not opened, and whether another link may do better.
func (c *Client) opened(link *mux.Link, to Addr, req mux.Request, err error) (again bool, failure error) {
	refused, ok := errors.AsType[*mux.Error](err)
	if !ok {
		return false, c.about(to, err)
	}
	out := fromMux("dial", to.Cluster, to.Address, refused)
	out.RequestID = req.RequestID
	switch {
	case refused.Code == wire.CodeUnauthenticated && refused.Hop == wire.HopHub:
		c.way.refused(link)
		return c.set.tokens != nil, out
	case refused.Refused && out.Code == LinkLost:
		return true, out // nobody has acted on it
	}
	return false, out
}

// bounded gives ctx an end where it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, openTime)
}
