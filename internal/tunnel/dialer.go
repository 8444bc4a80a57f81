package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"google.golang.org/grpc"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// DialerConfig sets up a [Dialer]. Address, TLS and Logger are required.
type DialerConfig struct {
	// Address is the hub's host:port.
	Address string
	// Protocol is the ALPN name to ask for. Default [Protocol].
	Protocol string
	// TLS returns what verifies the hub and presents the dialler's certificate;
	// it is called for each attempt, so that files may rotate. ALPN and the least
	// version are filled in; without ServerName the host of Address is used.
	TLS func() *tls.Config
	// Dial opens the TCP connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Metadata returns what the call has beside the connection, such as a bearer
	// token: pairs of lower-case names and values. Nil: nothing.
	Metadata func(ctx context.Context) ([]string, error)
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
	current atomic.Pointer[Conn]
}

// NewDialer returns a dialler; Run makes it work.
func NewDialer(cfg DialerConfig) *Dialer {
	return &Dialer{cfg: cfg}
}

// Link returns the link that works now, or nil.
func (d *Dialer) Link() *mux.Link {
	if c := d.current.Load(); c != nil {
		return c.link
	}
	return nil
}

// Conn returns the connection of the link that works now, for calls beside the
// link; nil when there is none. The dialler owns it.
func (d *Dialer) Conn() grpc.ClientConnInterface {
	if c := d.current.Load(); c != nil {
		return c.grpc
	}
	return nil
}

// Run connects and reconnects until ctx ends, which drops the link at once.
// For an orderly end call Shutdown first: then Run delivers what is on its way.
func (d *Dialer) Run(ctx context.Context) error {
	absent, failing := NewBackoff(absentInterval), NewBackoff(failInterval)
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

// NewBackoff gives random waits between attempts to reach a hub, from 0 to twice an interval
// that begins with 50 ms and doubles up to limit. It never gives up.
func NewBackoff(limit time.Duration) *backoff.ExponentialBackOff {
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
	if c := d.current.Load(); c != nil {
		return c.Drain(ctx, code, message)
	}
	return nil
}

// once makes one connection and runs its link to the end. The error is never
// nil.
func (d *Dialer) once(ctx context.Context, up func()) error {
	conn, err := Connect(ctx, d.cfg)
	if err != nil {
		return err
	}
	d.current.Store(conn)
	conn.link.StatusChanged() // it may have, before anybody could find the link
	up()
	select {
	case <-conn.Done():
	case <-ctx.Done():
		conn.Close()
	}
	d.current.CompareAndSwap(conn, nil)
	return conn.Wait()
}
