package fault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestEveryCodeHasAMeaning(t *testing.T) {
	for code := wire.CodeCanceled; code <= wire.CodeRequestTooLarge; code++ {
		f := &fault.Error{Code: code}
		if f.HTTPStatus() < 400 || f.Reason() == "" || f.GRPCCode() == codes.OK {
			t.Errorf("%v: HTTP %d, reason %q, gRPC %v", code, f.HTTPStatus(), f.Reason(), f.GRPCCode())
		}
	}
	for _, unknown := range []wire.Code{wire.CodeUnspecified, 22, 1 << 31} {
		if got := (&fault.Error{Code: unknown}).HTTPStatus(); got != http.StatusInternalServerError {
			t.Errorf("unknown code %d: HTTP %d", unknown, got)
		}
	}
}

func TestUnavailableIsNeverUnauthorized(t *testing.T) {
	for code, status := range map[wire.Code]int{
		wire.CodeUnavailable:      503,
		wire.CodeLinkLost:         503,
		wire.CodeUnauthenticated:  401,
		wire.CodePermissionDenied: 403,
		wire.CodeNotFound:         404,
		wire.CodeInvalidTarget:    400,
		wire.CodeDeadlineExceeded: 504,
		wire.CodeTooManyRequests:  429,
		wire.CodeRequestTooLarge:  413,
	} {
		if got := (&fault.Error{Code: code}).HTTPStatus(); got != status {
			t.Errorf("%v: HTTP %d, want %d", code, got, status)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("no route to host")
	f := &fault.Error{
		Hop: wire.HopAgent, Op: "dial", Code: wire.CodeUnreachable, Cluster: "edge-1", Target: "tcp db:5432", Err: cause,
	}
	if got, want := f.Error(), "agent: dial: cluster edge-1: tcp db:5432: unreachable: no route to host"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("request: %w", f)
	if fault.As(wrapped) != f || !errors.Is(wrapped, cause) {
		t.Error("a wrapped fault must be found, and its cause")
	}
	if fault.As(cause) != nil {
		t.Error("an error that is no fault must give nil")
	}
}

func TestErrorIsWhatPackageNetWouldGive(t *testing.T) {
	errnos := map[error]wire.Code{
		syscall.ECONNREFUSED:     wire.CodeConnectionRefused,
		syscall.ECONNRESET:       wire.CodeConnectionReset,
		context.Canceled:         wire.CodeCanceled,
		context.DeadlineExceeded: wire.CodeDeadlineExceeded,
		os.ErrDeadlineExceeded:   wire.CodeDeadlineExceeded,
	}
	for code := wire.CodeUnspecified; code <= wire.CodeRequestTooLarge; code++ {
		err := fmt.Errorf("request: %w", &fault.Error{Code: code, Err: errors.New("told by another hop")})
		for target, of := range errnos {
			if got, want := errors.Is(err, target), code == of; got != want {
				t.Errorf("%v is %v: %v, want %v", code, target, got, want)
			}
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || timeout.Timeout() != (code == wire.CodeDeadlineExceeded) {
			t.Errorf("%v: timeout %v", code, timeout)
		}
	}
}
