package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"google.golang.org/grpc"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tlsio"
	"github.com/culvertdev/culvert/internal/wire"
)

// DialerConfig sets up a [Dialer]. Address, TLS and Logger are required.
type DialerConfig struct {
	// Address is the hub's host:port.
	Address string
	// TLS returns what verifies the hub and presents the dialler's certificate;
	// it is called for each attempt, so that files may rotate. ALPN and the least
	// version are filled in; without ServerName the host of Address is used.
	TLS func() *tls.Config
	// Dial opens the TCP connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Mux is the configuration of each link; Dialler and addresses are filled
	// in.
	Mux    mux.Config
	Logger *slog.Logger
}

const (
	// connectTimeout bounds TCP and TLS of one attempt.
	connectTimeout = 10 * time.Second
	// The waits between attempts are random between 0 and twice the interval
	// ("full jitter"), and the interval doubles. While nobody answers at the
	// hub's address an attempt costs nobody anything, so the interval stays
	// short and the agent is back within a second of the hub. A hub that answers
	// and fails is given more time.
	firstInterval  = 50 * time.Millisecond
	absentInterval = 300 * time.Millisecond
	failInterval   = 15 * time.Second
	// settledAfter is how long a link must last for the waits to start over.
	settledAfter = 5 * time.Second
	// reportInterval keeps the log short while the hub is away.
	reportInterval = 10 * time.Second
)

// Dialer keeps one link to a hub, and makes a new one when it is lost.
type Dialer struct {
	cfg     DialerConfig
	current atomic.Pointer[mux.Link]
	conn    atomic.Pointer[carrier] // of current
}

// NewDialer returns a dialler; Run makes it work.
func NewDialer(cfg DialerConfig) *Dialer {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	return &Dialer{cfg: cfg}
}

// Link returns the link that works now, or nil.
func (d *Dialer) Link() *mux.Link { return d.current.Load() }

// Run connects and reconnects until ctx ends, which drops the link at once.
// For an orderly end call Shutdown first.
func (d *Dialer) Run(ctx context.Context) error {
	absent, failing := newBackoff(absentInterval), newBackoff(failInterval)
	down := time.Now()
	var reported time.Time
	for {
		start := time.Now()
		var connected atomic.Bool
		err := d.once(ctx, func() {
			d.cfg.Logger.Info("connected to the hub", "hub", d.cfg.Address, "after", time.Since(down).Round(time.Millisecond))
			connected.Store(true)
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end, the error is the consequence
		}
		if time.Since(start) > settledAfter {
			absent.Reset()
			failing.Reset()
		}
		wait := failing.NextBackOff()
		if connected.Load() || errors.Is(err, syscall.ECONNREFUSED) {
			wait = absent.NextBackOff()
		}
		if connected.Load() {
			down, reported = time.Now(), time.Time{}
		}
		if time.Since(reported) > reportInterval {
			d.cfg.Logger.Warn("no connection to the hub, trying again", "hub", d.cfg.Address, "reason", err)
			reported = time.Now()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// newBackoff gives random waits of 0 to 2 x interval, doubling up to limit.
func newBackoff(limit time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstInterval),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(1),
		backoff.WithMaxInterval(limit),
		backoff.WithMaxElapsedTime(0),
	)
}

// Shutdown drains the link that works now. Run must be ended afterwards.
func (d *Dialer) Shutdown(ctx context.Context, code wire.Code, message string) error {
	if l := d.Link(); l != nil {
		return l.Drain(ctx, code, message)
	}
	return nil
}

// once makes one connection and runs its link to the end. The error is never
// nil.
func (d *Dialer) once(ctx context.Context, up func()) error {
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	given := atomic.Bool{}
	cc, err := grpc.NewClient("passthrough:///"+d.cfg.Address,
		grpc.WithTransportCredentials(Credentials(Protocol)),
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
	if err != nil {
		return errors.Join(fmt.Errorf("grpc client: %w", err), conn.Close())
	}
	err = d.runStream(ctx, cc, conn, up)
	// gRPC owns the connection once it took it; closing twice does no harm.
	return errors.Join(err, ignoreClosed(cc.Close()), ignoreClosed(conn.Close()))
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

func (d *Dialer) runStream(ctx context.Context, cc *grpc.ClientConn, conn *hubConn, up func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := culvertv1.NewTunnelServiceClient(cc).Connect(ctx)
	if err != nil {
		return fmt.Errorf("open the tunnel stream: %w", err)
	}
	cfg := d.cfg.Mux
	cfg.Dialler = true
	cfg.LocalAddr, cfg.RemoteAddr = conn.LocalAddr(), conn.RemoteAddr()
	transport := &clientTransport{stream: stream, cancel: cancel}
	link := mux.New(transport, cfg)
	on := &carrier{cc: cc, state: conn.ConnectionState()}
	on.shown.Store(conn.shown.Load())
	var watch sync.WaitGroup
	watch.Go(func() {
		if _, err := link.Peer(ctx); err != nil {
			return // Run says why
		}
		d.conn.Store(on)
		d.current.Store(link)
		link.StatusChanged() // it may have, before anybody could find the link
		up()
		<-link.Done()
		d.current.CompareAndSwap(link, nil)
		d.conn.CompareAndSwap(on, nil)
	})
	err = link.Run(ctx)
	transport.end()
	watch.Wait()
	if err == nil {
		err = &mux.Error{Code: wire.CodeDraining, Hop: cfg.Hop, Message: "this side drained the tunnel"}
	}
	return err
}

// connect opens TCP and TLS to the hub.
func (d *Dialer) connect(ctx context.Context) (*hubConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := d.cfg.Dial(ctx, "tcp", d.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub: %w", err)
	}
	cfg := d.cfg.TLS().Clone()
	cfg.NextProtos = []string{Protocol}
	cfg.MinVersion = tls.VersionTLS13
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(d.cfg.Address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hub address: %w", err), raw.Close())
		}
		cfg.ServerName = host
	}
	out := &hubConn{}
	remember(cfg, &out.shown)
	conn := tlsio.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls with the hub as %q: %w", cfg.ServerName, err), ignoreClosed(raw.Close()))
	}
	conn.Bulk()
	out.Conn = conn
	return out, nil
}
