package acceptor

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/culvertdev/culvert/internal/telemetry"
)

// interceptors returns what every call of an agent passes through: it is counted
// and logged when it has ended, a panic becomes a status, the caller is
// authenticated, and one who calls too often is refused. Only streams are
// authenticated here; the one unary method asks for the lease of its connection.
//
// The tunnel's stream is one call that lasts for days. It gets a line at its end,
// and no span: requests and sessions have spans of their own.
func interceptors(log *slog.Logger, metrics *telemetry.Metrics, authenticate auth.AuthFunc) []grpc.ServerOption {
	lines := logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		log.Log(ctx, slog.Level(level), message, fields...) //nolint:sloglint // the message is the interceptor's
	})
	how := []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(callLevel),
		logging.WithDurationField(logging.DurationToDurationField),
	}
	recovered := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		metrics.Panicked("tunnel")
		log.ErrorContext(ctx, "tunnel handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	})
	limit := newCallLimit(callsPerSecond, callBurst)
	return []grpc.ServerOption{
		grpc.ChainStreamInterceptor(
			countStream(metrics),
			logging.StreamServerInterceptor(lines, how...),
			recovery.StreamServerInterceptor(recovered),
			auth.StreamServerInterceptor(authenticate),
			ratelimit.StreamServerInterceptor(limit),
		),
		grpc.ChainUnaryInterceptor(
			countUnary(metrics),
			logging.UnaryServerInterceptor(lines, how...),
			recovery.UnaryServerInterceptor(recovered),
			ratelimit.UnaryServerInterceptor(limit),
		),
	}
}

// callLevel keeps what is normal out of the log: a tunnel that ends has a line of
// its own, with the cluster and the reason.
func callLevel(code codes.Code) logging.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return logging.LevelError
	case codes.ResourceExhausted, codes.InvalidArgument, codes.Unimplemented:
		return logging.LevelWarn
	default:
		return logging.LevelDebug
	}
}

func countStream(metrics *telemetry.Metrics) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		err := next(srv, stream)
		metrics.Called(path.Base(info.FullMethod), status.Code(err).String())
		return err
	}
}

func countUnary(metrics *telemetry.Metrics) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		metrics.Called(path.Base(info.FullMethod), status.Code(err).String())
		return resp, err
	}
}
