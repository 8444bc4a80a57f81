// Package sni is the hub's front end for targets of raw bytes that clients name in
// TLS (RFC 6066 section 3): an API server that ends the client's TLS itself, or any
// TCP service, whose TLS ends at the client's target or at the hub.
//
// The port has read the client's ClientHello. It travels with the open of the
// session, so that the target answers after one round trip of the tunnel.
//
// # Who calls
//
// Nobody says so in a way that the hub could check, unless TLS ends here and the
// client shows a certificate. So callers are the user system:culvert:pass-through
// (see identity.JudgedByTarget), which limits and the policy are about, at the hub
// and at the agent; the target authenticates.
//
// # Refusals
//
// A client whose TLS is not the hub's to end is told by an alert of TLS, which is in
// the clear before a ServerHello: access_denied, unrecognized_name or
// internal_error. Its reason is in the hub's log and audit.
package sni

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// DefaultIdleTimeout is how long a stream without a byte is kept.
const DefaultIdleTimeout = 24 * time.Hour

// Config sets up a [Server]. All of it but IdleTimeout is required.
type Config struct {
	Sessions front.Sessions
	// Certificate says who showed a client certificate that was verified in the
	// handshake, nil where there is none.
	Certificate func(tls.ConnectionState) (identity.Caller, bool, error)
	// IdleTimeout cuts a stream over which nothing goes. 0 is [DefaultIdleTimeout].
	IdleTimeout time.Duration
	Logger      *slog.Logger
}

// Server joins clients and targets. It is safe for concurrent use.
type Server struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // no stream begins once Close waits
	closed  bool
	streams sync.WaitGroup
}

// New returns a server, which the caller closes.
func New(cfg Config) *Server {
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	s := &Server{cfg: cfg}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve takes the connections of a [front.Port.Streams] until that closes. Streams
// that have begun go on.
func (s *Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		stream, ok := c.(*front.Stream)
		if !ok {
			return errors.Join(fmt.Errorf("sni: a %T where a stream is wanted", c), c.Close())
		}
		s.begin(stream)
	}
}

func (s *Server) begin(stream *front.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.hangUp(stream)
		return
	}
	s.streams.Go(func() { s.serve(stream) })
}

// Close ends opens that wait, and waits for the streams, which end with their
// sessions: end those first, or wait for them.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.streams.Wait()
}

// serve is a stream from its beginning to its end.
func (s *Server) serve(stream *front.Stream) {
	ctx := answer.WithID(s.ctx)
	want := &front.Session{
		Cluster: stream.Host.Cluster, Target: stream.Host.Target, First: stream.First,
		Caller: identity.JudgedByTarget(), Source: stream.RemoteAddr().String(), Start: time.Now(),
	}
	session, err := s.open(ctx, stream, want)
	if err != nil {
		s.refuse(stream, err)
		return
	}
	defer splice.CutIdle(session, s.cfg.IdleTimeout, wire.HopHub)()
	// The connection itself where it can be: it is read without copies.
	var client splice.Conn = stream
	if whole, ok := stream.Conn.(splice.Conn); ok {
		client = whole
	}
	result := splice.Join(client, session, wire.HopClient)
	s.cfg.Logger.Info("stream ended", "request_id", answer.RequestID(ctx), "name", stream.Name, "cluster", want.Cluster, "target", want.Target.String(),
		"received", result.AToB, "sent", result.BToA, "duration", time.Since(want.Start), "reason", reason(result.Err))
}

func reason(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}

func (s *Server) open(ctx context.Context, stream *front.Stream, want *front.Session) (*mux.Session, error) {
	if err := s.cfg.Sessions.Admit(ctx, want); err != nil {
		s.cfg.Sessions.Refuse(ctx, want, err)
		return nil, err
	}
	if secure, ok := stream.Conn.(*tls.Conn); ok {
		caller, shown, err := s.cfg.Certificate(secure.ConnectionState())
		if err != nil {
			s.cfg.Sessions.Refuse(ctx, want, err)
			return nil, err
		}
		if shown {
			want.Caller = caller
		}
	}
	return s.cfg.Sessions.Open(ctx, want)
}

// The alerts of RFC 8446 section 6.2 and RFC 6066 section 3.
const (
	alertAccessDenied     = 49
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// refuse tells the client, as far as TLS can.
func (s *Server) refuse(stream *front.Stream, err error) {
	if len(stream.First) > 0 {
		code := byte(alertInternalError)
		if f := fault.As(err); f != nil {
			switch f.Code {
			case wire.CodePermissionDenied:
				code = alertAccessDenied
			case wire.CodeNotFound:
				code = alertUnrecognizedName
			}
		}
		// A record of one fatal alert: type 21, version 3.3, length 2.
		if err := stream.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
			_, err = stream.Write([]byte{21, 3, 3, 0, 2, 2, code})
			if err != nil {
				s.cfg.Logger.Debug("a refused client did not wait for the reason", "remote", stream.RemoteAddr().String(), "reason", err)
			}
		}
	}
	s.hangUp(stream)
}

func (s *Server) hangUp(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.cfg.Logger.Debug("close", "remote", c.RemoteAddr().String(), "reason", err)
	}
}
