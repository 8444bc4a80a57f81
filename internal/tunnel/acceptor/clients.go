package acceptor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/wire"
)

// Client is who is at the other end of a client's link. It is not changed.
type Client struct {
	// TLS is the state of its connection, which may have a certificate.
	TLS tls.ConnectionState
	// Authorization are the values of that field of the call, which hold a credential.
	Authorization []string
	// Local and Addr are the addresses of the connection.
	Local, Addr net.Addr
}

// Request returns what an authenticator of HTTP requests needs to judge the client.
func (c *Client) Request(ctx context.Context) *http.Request {
	state := c.TLS
	r := &http.Request{
		Method: http.MethodConnect, ProtoMajor: 2, Host: c.TLS.ServerName, RemoteAddr: c.Addr.String(),
		Header: make(http.Header, 4), TLS: &state, Body: http.NoBody,
	}
	if len(c.Authorization) > 0 {
		r.Header["Authorization"] = slices.Clone(c.Authorization)
	}
	return r.WithContext(ctx)
}

// LogValue keeps the credential out of logs.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.Addr.String()) }

// ClientsConfig sets up [Clients]. Admit, Handle and Logger are required.
type ClientsConfig struct {
	// Admit says who a client is, before its link begins, for limits and the log. Its
	// error is a [*fault.Error] and refuses the client.
	Admit func(context.Context, *Client) (user string, err error)
	// Handle decides about a session that the client wants, see [mux.Config].
	Handle func(context.Context, *Client, *mux.Incoming)
	// Mux is the configuration of each link; addresses are filled in.
	Mux mux.Config
	// MaxLinks bounds the links. Default 10 000.
	MaxLinks int
	// MaxUserLinks bounds those of one user. Default a tenth of MaxLinks.
	MaxUserLinks int
	// IdleTime is how long a connection may be without a call: its peer has not said who
	// it is. Default 30 s.
	IdleTime time.Duration
	// Metrics counts calls and panics; nil counts nothing.
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
}

// Clients is the hub's end of the links of clients. It is safe for concurrent use.
type Clients struct {
	cfg     ClientsConfig
	grpc    *grpc.Server
	running sync.WaitGroup // links

	mu       sync.Mutex
	draining bool
	links    map[*mux.Link]string // with whose they are
	users    map[string]int       // how many
}

// NewClients returns a server; Serve makes it work.
func NewClients(cfg ClientsConfig) *Clients {
	if cfg.MaxLinks <= 0 {
		cfg.MaxLinks = 10_000
	}
	if cfg.MaxUserLinks <= 0 {
		cfg.MaxUserLinks = max(1, cfg.MaxLinks/10)
	}
	c := &Clients{cfg: cfg, links: make(map[*mux.Link]string), users: make(map[string]int)}
	c.grpc = grpc.NewServer(slices.Concat(
		interceptors(cfg.Logger, cfg.Metrics, c.authenticate), tunnel.ServerOptions(cmp.Or(cfg.IdleTime, idleTime)),
		[]grpc.ServerOption{grpc.Creds(tunnel.Credentials(tunnel.ClientProtocol))},
	)...)
	culvertv1.RegisterTunnelServiceServer(c.grpc, &clientService{clients: c})
	return c
}

// Serve accepts clients from l, whose connections are of TLS with a complete
// handshake. It returns nil after Shutdown.
func (c *Clients) Serve(l net.Listener) error {
	if err := serve(c.grpc, l); err != nil {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

// serve serves until s is stopped, which may be before it begins.
func serve(s *grpc.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown sends GOAWAY on every link, waits for their sessions until ctx is done,
// and ends everything. It returns ctx's error when sessions were cut.
func (c *Clients) Shutdown(ctx context.Context, code wire.Code, message string) error {
	c.mu.Lock()
	c.draining = true
	links := make([]*mux.Link, 0, len(c.links))
	for l := range c.links {
		links = append(links, l)
	}
	c.mu.Unlock()
	err := drainLinks(ctx, links, code, message)
	stopServer(ctx, c.grpc)
	c.running.Wait()
	return err
}

// Len returns how many clients are connected.
func (c *Clients) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.links)
}

// idleTime is how long a connection may be without a call.
const idleTime = 30 * time.Second

type clientKey struct{}

// admitted is a client with the user that it is.
type admitted struct {
	*Client

	user string
}

// authenticate puts the client into the context of the call.
func (c *Clients) authenticate(ctx context.Context) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	conn, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	client := &Client{TLS: conn.State, Local: p.LocalAddr, Addr: p.Addr}
	client.Authorization = metadata.ValueFromIncomingContext(ctx, "authorization")
	user, err := c.cfg.Admit(ctx, client)
	if err != nil {
		c.cfg.Logger.Info("client refused", "remote", p.Addr.String(), "reason", err)
		return nil, clientStatus(err)
	}
	ctx = context.WithValue(ctx, clientKey{}, admitted{client, user})
	return context.WithValue(ctx, callerKey{}, "user "+user), nil
}

// clientStatus is how a client is told why it is refused.
func clientStatus(err error) error {
	f := fault.As(err)
	if f == nil || f.Code.Known() == wire.CodeInternal {
		return status.Error(codes.Internal, "internal error")
	}
	message := f.Code.String()
	if f.Err != nil {
		message = f.Err.Error()
	}
	return status.Error(f.GRPCCode(), message)
}

// clientService keeps the RPC out of Clients' own methods.
type clientService struct {
	culvertv1.UnimplementedTunnelServiceServer

	clients *Clients
}

// Connect implements TunnelService.
func (v *clientService) Connect(stream culvertv1.TunnelService_ConnectServer) error {
	c := v.clients
	ctx := stream.Context()
	client, ok := ctx.Value(clientKey{}).(admitted)
	if !ok {
		return status.Error(codes.Unauthenticated, "the call was not authenticated")
	}
	cfg := c.cfg.Mux
	cfg.Hop = wire.HopHub
	cfg.LocalAddr, cfg.RemoteAddr = client.Local, client.Addr
	cfg.Handler = func(ctx context.Context, in *mux.Incoming) { c.cfg.Handle(ctx, client.Client, in) }
	link := mux.New(&serverTransport{stream: stream}, cfg)
	if err := c.add(link, client.user); err != nil {
		return err
	}
	// The end of the stream reaches the link by Recv, see Server.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	log := c.cfg.Logger.With("remote", client.Addr.String())
	c.running.Go(func() {
		defer c.remove(link)
		defer cancel()
		runClient(life, link, log)
	})
	<-link.Done()
	return linkStatus(link.Err())
}

// runClient runs the link of one client to its end.
func runClient(ctx context.Context, link *mux.Link, log *slog.Logger) {
	err := link.Run(ctx)
	reason := "drained"
	if err != nil {
		reason = err.Error()
	}
	log.Debug("client disconnected", "reason", reason)
}

func (c *Clients) add(l *mux.Link, user string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.draining:
		return status.Error(codes.Unavailable, "the hub is draining")
	case len(c.links) >= c.cfg.MaxLinks:
		return status.Errorf(codes.ResourceExhausted, "the hub has %d clients, which is all it takes", c.cfg.MaxLinks)
	case c.users[user] >= c.cfg.MaxUserLinks:
		return status.Errorf(codes.ResourceExhausted, "%q has %d links at this hub, which is all that one user may have: end programs, or let them share one", user, c.cfg.MaxUserLinks)
	}
	c.links[l] = user
	c.users[user]++
	return nil
}

func (c *Clients) remove(l *mux.Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	user := c.links[l]
	delete(c.links, l)
	if c.users[user]--; c.users[user] == 0 {
		delete(c.users, user)
	}
}

// drainLinks drains links at once.
func drainLinks(ctx context.Context, links []*mux.Link, code wire.Code, message string) error {
	errs := make([]error, len(links))
	var drains sync.WaitGroup
	for i, l := range links {
		drains.Go(func() { errs[i] = l.Drain(ctx, code, message) })
	}
	drains.Wait()
	return errors.Join(errs...)
}

// stopServer ends a server whose links are over, so that what they sent last gets out.
func stopServer(ctx context.Context, s *grpc.Server) {
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.Stop()
		<-stopped
	}
}
