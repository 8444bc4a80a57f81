package mux

import (
	"context"
	"net"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// Defaults of [Config].
const (
	DefaultInitialWindow    = 256 << 10
	DefaultMinWindow        = 16 << 10
	DefaultMaxWindow        = 32 << 20
	DefaultSendBuffer       = 256 << 10
	DefaultMaxData          = 128 << 10
	DefaultMaxSessions      = 65536
	DefaultMaxPending       = 1024
	DefaultOpenTimeout      = 15 * time.Second
	DefaultKeepAlive        = 3 * time.Second
	DefaultKeepAliveTimeout = 8 * time.Second
	DefaultHelloTimeout     = 10 * time.Second
	DefaultLinger           = 24 * time.Hour
)

// Config sets up a [Link]. Zero fields take the defaults above. It is copied
// by [New] and may be used again.
type Config struct {
	// Dialler is true at the side that dialled the stream; it decides which
	// session ids the side uses.
	Dialler bool
	// Hello gives features, version, labels, instance and name to announce. The link
	// fills in revision, window and bounds.
	Hello wire.Hello
	// Handler decides about sessions that the peer opens. Each call runs in a
	// goroutine of its own, at most MaxPending undecided at once, and may go on
	// after it accepted. Its context ends when the opener gives up, when the
	// open's time is over (until Accept), or when the link ends. Without a
	// Handler every open is refused.
	Handler func(ctx context.Context, in *Incoming)
	// Status returns how ready this side is for the peer's sessions, for the peer to
	// know: once it said HELLO, and after each [Link.StatusChanged]. It is called with
	// the link locked and must return at once. Nil: nothing is said, and this side
	// counts as ready. What it returns is not changed any more.
	Status func() *wire.Status
	// Budget is what windows are drawn from; links of a process share one.
	// Without it the link has one of DefaultBudget of its own.
	Budget *Budget
	// InitialWindow is the credit of a new session, in bytes: from its open where
	// this side opens it, from Accept where the peer does. While the budget is short
	// it is MinWindow.
	InitialWindow int
	// MinWindow is what every session is granted whatever the budget says, in
	// bytes. HELLO promises it for the first bytes of the peer's opens.
	MinWindow int
	// MaxWindow is how far a session's window may grow, in bytes.
	MaxWindow int
	// SendBuffer is how many written bytes a session queues before Write
	// blocks.
	SendBuffer int
	// MaxData is the largest payload that this side accepts in one frame, in
	// bytes, at least 1024.
	MaxData int
	// MaxSessions bounds the sessions that the peer may have open.
	MaxSessions int
	// MaxPending bounds the sessions of the peer that the Handler has not yet
	// decided about.
	MaxPending int
	// OpenTimeout bounds how long the Handler may take when the opener names no
	// time of its own.
	OpenTimeout time.Duration
	// KeepAlive is the time between pings. KeepAliveTimeout is after how long
	// without any frame from the peer the link is given up.
	KeepAlive, KeepAliveTimeout time.Duration
	// HelloTimeout bounds the wait for the peer's HELLO.
	HelloTimeout time.Duration
	// Linger is how long a session that was closed here, and has bytes that the
	// peer gives no credit for, may go on without a sign of the peer.
	Linger time.Duration
	// Hop is the place of this side on a caller's way, for errors it sends.
	Hop wire.Hop
	// LocalAddr and RemoteAddr are those of the link; sessions report them.
	LocalAddr, RemoteAddr net.Addr
}

func (c Config) withDefaults() Config {
	setDefault(&c.InitialWindow, DefaultInitialWindow)
	setDefault(&c.MinWindow, min(DefaultMinWindow, c.InitialWindow))
	setDefault(&c.MaxWindow, DefaultMaxWindow)
	c.MaxWindow = max(c.MaxWindow, c.InitialWindow)
	setDefault(&c.SendBuffer, DefaultSendBuffer)
	setDefault(&c.MaxData, DefaultMaxData)
	setDefault(&c.MaxSessions, DefaultMaxSessions)
	setDefault(&c.MaxPending, DefaultMaxPending)
	setDefault(&c.OpenTimeout, DefaultOpenTimeout)
	setDefault(&c.KeepAlive, DefaultKeepAlive)
	setDefault(&c.KeepAliveTimeout, DefaultKeepAliveTimeout)
	setDefault(&c.HelloTimeout, DefaultHelloTimeout)
	setDefault(&c.Linger, DefaultLinger)
	if c.Budget == nil {
		c.Budget = NewBudget(DefaultBudget)
	}
	if c.LocalAddr == nil {
		c.LocalAddr = Addr{}
	}
	if c.RemoteAddr == nil {
		c.RemoteAddr = Addr{}
	}
	return c
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Addr is the address of a session end whose transport has none.
type Addr struct{}

// Network returns "culvert".
func (Addr) Network() string { return "culvert" }

// String returns "tunnel".
func (Addr) String() string { return "tunnel" }
