package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// Bounds of what strangers can have.
const (
	maxMessage     = 64 << 10
	maxHeaders     = 16 << 10
	maxStreams     = 4
	window         = 64 << 10
	maxConnections = 256
	maxFromOne     = 32 // connections of one network
	// A connection is for one enrolment, which asks again while it waits.
	maxIdle = 30 * time.Second
	maxAge  = 2 * time.Minute
	grace   = 10 * time.Second
	// reportEvery keeps connections above the bounds from filling the log.
	reportEvery = 10 * time.Second
)

// errPanic is a defect of the hub, as the peer gets it.
var errPanic = errors.New("panic")

// Server is what agents without a certificate reach. It is safe for concurrent
// use.
type Server struct {
	grpc *grpc.Server
	log  *slog.Logger

	mu       sync.Mutex
	total    int
	from     map[string]int // connections, by network
	reported time.Time
}

// NewServer returns a server of s; Serve makes it work.
func NewServer(s *Service) *Server {
	v := &Server{log: s.log, from: make(map[string]int)}
	recovered := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		s.log.Error("enrolment panicked", "panic", p)
		return judge(errPanic).status()
	})
	v.grpc = grpc.NewServer(
		grpc.Creds(tunnel.Credentials(enrol.Protocol)),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.ConnectionTimeout(grace),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: maxIdle, MaxConnectionAge: maxAge, MaxConnectionAgeGrace: grace,
			Time: maxIdle, Timeout: grace,
		}),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(recovered)),
	)
	culvertv1.RegisterEnrolmentServiceServer(v.grpc, strangers{service: s})
	return v
}

// Serve accepts from l, whose connections are TLS connections with a complete
// handshake for enrol.Protocol. It returns nil after Shutdown. It may be called
// for several listeners.
func (v *Server) Serve(l net.Listener) error {
	err := v.grpc.Serve(&bounded{Listener: l, server: v})
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve enrolment: %w", err)
	}
	return nil
}

// Shutdown ends the server, with the calls under way until ctx is done.
func (v *Server) Shutdown(ctx context.Context) {
	stop := context.AfterFunc(ctx, v.grpc.Stop)
	defer stop()
	v.grpc.GracefulStop()
}

// strangers serves the half of EnrolmentService that needs no certificate.
type strangers struct {
	culvertv1.UnimplementedEnrolmentServiceServer

	service *Service
}

// Enroll implements EnrolmentService.
func (s strangers) Enroll(ctx context.Context, req *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	return s.service.Enroll(ctx, req)
}

// Renew implements EnrolmentService.
func (strangers) Renew(context.Context, *culvertv1.RenewRequest) (*culvertv1.RenewResponse, error) {
	return nil, (&refusal{
		code: codes.FailedPrecondition, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_PORT,
		message: "a certificate is renewed over the agent's tunnel",
	}).status()
}

// bounded closes connections above the bounds at once. It must not leave them
// waiting: the port they come from counts those.
type bounded struct {
	net.Listener

	server *Server
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		network := networkOf(conn.RemoteAddr().String())
		if secure, ok := conn.(secureConn); ok && b.server.admit(network) {
			return &counted{secureConn: secure, leave: sync.OnceFunc(func() { b.server.leave(network) })}, nil
		}
		b.server.turnAway(conn)
	}
}

func (v *Server) admit(network string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.total >= maxConnections || v.from[network] >= maxFromOne {
		return false
	}
	v.total++
	v.from[network]++
	return true
}

func (v *Server) leave(network string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.total--
	if v.from[network]--; v.from[network] == 0 {
		delete(v.from, network)
	}
}

func (v *Server) turnAway(conn net.Conn) {
	v.mu.Lock()
	now := time.Now()
	report := now.Sub(v.reported) > reportEvery
	if report {
		v.reported = now
	}
	v.mu.Unlock()
	if report {
		v.log.Warn("enrolment refused", "remote", conn.RemoteAddr().String(), "reason", "too many connections that enrol, more are closed")
	}
	if err := conn.Close(); err != nil {
		v.log.Debug("close", "remote", conn.RemoteAddr().String(), "reason", err)
	}
}

// secureConn is a TLS connection.
type secureConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

// counted is a connection that says when it is closed.
type counted struct {
	secureConn

	leave func()
}

// Close implements [net.Conn].
func (c *counted) Close() error {
	c.leave()
	return c.secureConn.Close()
}
