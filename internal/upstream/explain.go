package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// explainDial returns the fault for a connection that could not be made.
func explainDial(err error) *fault.Error {
	if f := fault.As(err); f != nil {
		return f
	}
	f := &fault.Error{Hop: wire.HopTarget, Op: "dial", Code: wire.CodeUnreachable, Err: err}
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		f.Hop, f.Code = wire.HopClient, wire.CodeCanceled
	case errors.As(err, &dns):
		f.Hop, f.Op = wire.HopAgent, "resolve"
		switch {
		case dns.IsNotFound:
			f.Code, f.Err = wire.CodeNotFound, fmt.Errorf("no such name %s in the agent's DNS", dns.Name)
		case dns.IsTimeout:
			f.Code = wire.CodeDeadlineExceeded
		}
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Code = wire.CodeConnectionRefused
	case isTimeout(err):
		f.Code = wire.CodeDeadlineExceeded
	}
	return f
}

// explain returns the fault for a request that failed.
func explain(err error) *fault.Error {
	var op *net.OpError
	if f := fault.As(err); f != nil || errors.As(err, &op) && op.Op == "dial" {
		return explainDial(err)
	}
	f := &fault.Error{Hop: wire.HopTarget, Op: "proxy", Code: wire.CodeProtocolError, Err: err}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return explainDial(err)
	case isTLS(err):
		f.Op, f.Code = "tls handshake", wire.CodeTLSFailure
	case errors.Is(err, context.Canceled):
		f.Hop, f.Code = wire.HopClient, wire.CodeCanceled
	case isTimeout(err):
		f.Code = wire.CodeDeadlineExceeded
	case relay.Broken(err):
		f.Code, f.Err = wire.CodeConnectionReset, errors.New("the target closed the connection before its answer was complete")
	}
	return f
}

// withTarget names the target in f, which belongs to the caller alone.
func withTarget(f *fault.Error, target wire.Target) *fault.Error {
	if f.Target == "" {
		f.Target = target.String()
	}
	return f
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
		record       tls.RecordHeaderError
		alert        tls.AlertError
	)
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &hostname) || errors.As(err, &invalid) || errors.As(err, &record) || errors.As(err, &alert)
}
