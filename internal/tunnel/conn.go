package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tlsio"
	"github.com/culvertdev/culvert/internal/wire"
)

// Conn is one connection to a hub, with its link. It is safe for concurrent use.
// Whoever made it ends it.
type Conn struct {
	link *mux.Link
	grpc *grpc.ClientConn
	end  context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed

	drained atomic.Bool // its link was, to the end

	state tls.ConnectionState
	shown atomic.Pointer[tls.Certificate] // what the hub has seen last
}

// Connect makes one connection and returns once the hub has accepted it, which it does
// by its HELLO. The context bounds that, and has no part in what follows. The error of
// a hub that refuses is, or wraps, a gRPC status.
func Connect(ctx context.Context, cfg DialerConfig) (*Conn, error) {
	cfg.Protocol = cmp.Or(cfg.Protocol, Protocol)
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	conn, err := dialTLS(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cc, err := newClient(cfg, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("grpc client: %w", err), conn.Close())
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	free := func(err error) error {
		cancel()
		// gRPC owns the connection once it took it; closing twice does no harm.
		return errors.Join(err, ignoreClosed(cc.Close()), ignoreClosed(conn.Close()))
	}
	stream, err := openStream(life, cc, cfg)
	if err != nil {
		return nil, free(err)
	}
	c := &Conn{grpc: cc, end: cancel, done: make(chan struct{}), state: conn.ConnectionState()}
	c.shown.Store(conn.shown.Load())
	set := cfg.Mux
	set.Dialler = true
	set.LocalAddr, set.RemoteAddr = conn.LocalAddr(), conn.RemoteAddr()
	transport := &clientTransport{stream: stream, cancel: cancel}
	c.link = mux.New(transport, set)
	go c.run(life, transport, free, set.Hop)
	if _, err := c.link.Peer(ctx); err != nil {
		cancel()
		return nil, c.Wait() // which says why
	}
	return c, nil
}

// run runs the link to its end, which Close and the hub bring about, and frees
// everything.
func (c *Conn) run(ctx context.Context, transport *clientTransport, free func(error) error, hop wire.Hop) {
	defer close(c.done)
	err := c.link.Run(ctx)
	transport.end()
	if err == nil {
		err = &mux.Error{Code: wire.CodeDraining, Hop: hop, Message: "this side drained the tunnel"}
	}
	c.err = free(err)
}

// Link returns the connection's link.
func (c *Conn) Link() *mux.Link { return c.link }

// Drain is [mux.Link.Drain] of the connection's link.
func (c *Conn) Drain(ctx context.Context, code wire.Code, message string) error {
	err := c.link.Drain(ctx, code, message)
	if err == nil {
		c.drained.Store(true)
	}
	return err
}

// Close ends the connection at once. For an orderly end call Drain before: when that is
// over, the last of what the sessions have written is still on its way, and after it Close
// leaves the connection flushTime to deliver that. Done tells of the end.
func (c *Conn) Close() {
	if c.drained.Load() {
		time.AfterFunc(flushTime, c.end) // without effect on a connection that has ended
		return
	}
	c.end()
}

// Done is closed once the link has ended and everything is freed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Wait waits for Done and returns why the link ended. It is never nil.
func (c *Conn) Wait() error {
	<-c.done
	return c.err
}

// newClient makes a gRPC client of a connection that exists.
func newClient(cfg DialerConfig, conn net.Conn) (*grpc.ClientConn, error) {
	given := atomic.Bool{}
	return grpc.NewClient("passthrough:///"+cfg.Address,
		grpc.WithTransportCredentials(Credentials(cfg.Protocol)),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if given.Swap(true) {
				return nil, errors.New("the connection was lost")
			}
			return conn, nil
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(wire.Codec{}), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(clientKeepalive),
		grpc.WithStaticStreamWindowSize(transportWindow),
		grpc.WithStaticConnWindowSize(transportWindow),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithWriteBufferSize(writeBuffer),
		grpc.WithReadBufferSize(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	)
}

// openStream makes the one call of a connection.
func openStream(ctx context.Context, cc *grpc.ClientConn, cfg DialerConfig) (grpc.ClientStream, error) {
	if cfg.Metadata != nil {
		pairs, err := cfg.Metadata(ctx)
		if err != nil {
			return nil, err
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	stream, err := culvertv1.NewTunnelServiceClient(cc).Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the tunnel stream: %w", err)
	}
	return stream, nil
}

// ignoreClosed drops what closing says about a connection that is closed or
// broken already.
func ignoreClosed(err error) error {
	var op *net.OpError
	if errors.Is(err, net.ErrClosed) || errors.As(err, &op) {
		return nil
	}
	return err
}

// dialTLS opens TCP and TLS to the hub.
func dialTLS(ctx context.Context, cfg DialerConfig) (*hubConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := cfg.Dial(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub: %w", err)
	}
	secure := cfg.TLS().Clone()
	secure.NextProtos = []string{cfg.Protocol}
	secure.MinVersion = tls.VersionTLS13
	if secure.ServerName == "" {
		host, _, err := net.SplitHostPort(cfg.Address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hub address: %w", err), raw.Close())
		}
		secure.ServerName = host
	}
	out := &hubConn{}
	remember(secure, &out.shown)
	conn := tlsio.Client(raw, secure)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls with the hub as %q: %w", secure.ServerName, err), ignoreClosed(raw.Close()))
	}
	conn.Bulk()
	out.Conn = conn
	return out, nil
}
