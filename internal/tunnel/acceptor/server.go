// Package acceptor is the hub's end of tunnels: those of agents ([Server]), whose
// certificates say whose they are, and those of clients ([Clients]).
package acceptor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

// Peer is an agent at the other end of a link.
type Peer struct {
	// Cluster comes from the agent's certificate.
	Cluster string
	Addr    net.Addr
	// Hello is what the agent says of itself; nothing is decided on it but
	// which of its own links is newer.
	Hello *wire.Hello
}

// ServerConfig sets up a [Server]. Cluster, Register and Logger are required.
type ServerConfig struct {
	// Cluster gives the name that a connection's certificate proves. An error
	// refuses the stream.
	Cluster func(tls.ConnectionState) (string, error)
	// Register is called when a link is ready, and what it returns when the
	// link has ended. Both must not block.
	Register func(Peer, *mux.Link) (remove func())
	// Renew gives the agent of a live link a new certificate. Nil: certificates are
	// not renewed over the tunnel.
	Renew RenewFunc
	// Mux is the configuration of each link; addresses are filled in.
	Mux mux.Config
	// MaxClusterLinks bounds the links of one cluster, whose agents may lie about who they
	// are. Default 1000.
	MaxClusterLinks int
	// Metrics counts calls and panics; nil counts nothing.
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
}

// Server is the hub's end of all tunnels. It is safe for concurrent use.
type Server struct {
	cfg  ServerConfig
	grpc *grpc.Server

	running sync.WaitGroup // links

	mu       sync.Mutex
	draining bool
	links    map[*mux.Link]*held
	clusters map[string]int // links of each
}

// NewServer returns a server; Serve makes it work.
func NewServer(cfg ServerConfig) *Server {
	cfg.MaxClusterLinks = cmp.Or(cfg.MaxClusterLinks, 1000)
	s := &Server{cfg: cfg, links: make(map[*mux.Link]*held), clusters: make(map[string]int)}
	s.grpc = grpc.NewServer(slices.Concat(
		interceptors(cfg.Logger, cfg.Metrics, s.authenticate), tunnel.ServerOptions(idleTime),
		[]grpc.ServerOption{grpc.Creds(serverCredentials())},
	)...)
	culvertv1.RegisterTunnelServiceServer(s.grpc, &service{server: s})
	culvertv1.RegisterEnrolmentServiceServer(s.grpc, renewal{server: s})
	return s
}

// Serve accepts tunnels from l, whose connections are *tls.Conn with a complete
// handshake. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := serve(s.grpc, l); err != nil {
		return fmt.Errorf("serve tunnels: %w", err)
	}
	return nil
}

// Shutdown sends GOAWAY on every link, waits for their sessions until ctx is
// done, and ends everything. It returns ctx's error when sessions were cut.
func (s *Server) Shutdown(ctx context.Context, code wire.Code, message string) error {
	s.mu.Lock()
	s.draining = true
	links := make([]*mux.Link, 0, len(s.links))
	for l := range s.links {
		links = append(links, l)
	}
	s.mu.Unlock()
	err := drainLinks(ctx, links, code, message)
	stopServer(ctx, s.grpc)
	s.running.Wait()
	return err
}

type identityKey struct{}

// identity is what the peer's certificate proves, and the connection's lease.
type identity struct {
	cluster string
	conn    connection
}

// authenticate puts the identity that the peer's certificate proves into the
// context of the call.
func (s *Server) authenticate(ctx context.Context) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	conn, ok := p.AuthInfo.(connection)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	cluster, err := s.judge(p, conn)
	if err != nil {
		return nil, err
	}
	return context.WithValue(ctx, identityKey{}, identity{cluster, conn}), nil
}

// judge says whose certificate it is; the error is a status.
func (s *Server) judge(p *peer.Peer, conn connection) (string, error) {
	cluster, err := s.cfg.Cluster(conn.State)
	if err != nil {
		s.cfg.Logger.Warn("tunnel refused", "remote", p.Addr.String(), "reason", err)
		return "", status.Error(codes.Unauthenticated, err.Error())
	}
	return cluster, nil
}

// service keeps the RPCs out of Server's own methods.
type service struct {
	culvertv1.UnimplementedTunnelServiceServer

	server *Server
}

// Connect implements TunnelService.
func (v *service) Connect(stream culvertv1.TunnelService_ConnectServer) error {
	s := v.server
	ctx := stream.Context()
	who, ok := ctx.Value(identityKey{}).(identity)
	p, hasPeer := peer.FromContext(ctx)
	if !ok || !hasPeer {
		return status.Error(codes.Unauthenticated, "the call was not authenticated")
	}
	cfg := s.cfg.Mux
	cfg.Hop = wire.HopHub
	cfg.LocalAddr, cfg.RemoteAddr = p.LocalAddr, p.Addr
	link := mux.New(&serverTransport{stream: stream}, cfg)
	lease := who.conn.lease
	lease.begin(who.cluster, who.conn.State.PeerCertificates[0])
	held := newHeld(link, who.cluster, lease)
	if err := s.add(held); err != nil {
		lease.end()
		return err
	}
	// Once more: a revocation between the first look and now has not cut this link.
	if _, err := s.judge(p, who.conn); err != nil {
		s.remove(held)
		return err
	}
	// The end of the stream reaches the link by Recv, which knows more of it than
	// the stream's context, and would race with that.
	valid, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	log := s.cfg.Logger.With("cluster", who.cluster, "remote", p.Addr.String())
	s.running.Go(func() {
		defer s.remove(held)
		defer cancel(nil)
		run(valid, held, log)
	})
	s.attend(ctx, cancel, held, Peer{Cluster: who.cluster, Addr: p.Addr}, log)
	// The stream ends when this returns, and only then do the link's loops see
	// the end of it; so it returns before they do.
	return linkStatus(link.Err())
}

// attend registers the link when the agent has said HELLO, and ends it when it
// may not go on. It returns once the link has ended.
func (s *Server) attend(ctx context.Context, cancel context.CancelCauseFunc, held *held, p Peer, log *slog.Logger) {
	hello, err := held.link.Peer(ctx)
	if err == nil {
		p.Hello = hello
		remove := s.cfg.Register(p, held.link)
		defer remove()
		log.Info("agent connected", "agent", hello.Name, "version", hello.Version, "instance", hello.Instance)
	}
	held.guard(cancel) // without HELLO the link ends by itself, and run says why
}

// run runs the link of one agent to its end.
func run(ctx context.Context, held *held, log *slog.Logger) {
	start := time.Now()
	err := held.link.Run(ctx)
	reason := held.reason()
	switch {
	case reason != "":
	case err != nil:
		reason = err.Error()
	default:
		reason = "drained"
	}
	log.Info("agent disconnected", "after", time.Since(start).Round(time.Millisecond), "reason", reason)
}

// linkStatus tells the agent why its link ended.
func linkStatus(err error) error {
	var e *mux.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code == wire.CodeProtocolError:
		return status.Error(codes.InvalidArgument, e.Error())
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}

func (s *Server) add(h *held) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return status.Error(codes.Unavailable, "the hub is draining")
	case s.clusters[h.cluster] >= s.cfg.MaxClusterLinks:
		return status.Errorf(codes.ResourceExhausted, "the cluster %s has %d links at this hub, which is all that one may have: end agents", h.cluster, s.cfg.MaxClusterLinks)
	}
	s.links[h.link] = h
	s.clusters[h.cluster]++
	return nil
}

func (s *Server) remove(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, h.link)
	if s.clusters[h.cluster]--; s.clusters[h.cluster] == 0 {
		delete(s.clusters, h.cluster)
	}
	h.lease.end()
}
