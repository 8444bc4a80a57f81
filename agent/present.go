package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"github.com/culvertdev/culvert/internal/tunnel"
)

const (
	// presentEvery is how often files are looked at for a certificate that the hub has
	// not seen.
	presentEvery = 2 * time.Second
	// mostPresentRetry bounds the wait after failures.
	mostPresentRetry = time.Minute
)

// presenter shows the hub each certificate that appears in files, so that the tunnel
// outlives the one that it began with. run owns it.
type presenter struct {
	certificate func() *tls.Certificate
	present     func(context.Context, *tls.Certificate) (done bool, err error)
	log         *slog.Logger

	outcome  attempts
	failures int
	next     time.Time // no attempt before
}

// newPresenter shows t's certificate on the connections of dialer.
func newPresenter(t trust, dialer *tunnel.Dialer, log *slog.Logger) *presenter {
	return &presenter{certificate: t.certificate, present: dialer.Present, log: log}
}

// run works until ctx ends. A failure is reported and tried again; the tunnel goes on
// with the certificate that the hub knows.
func (p *presenter) run(ctx context.Context) {
	ticker := time.NewTicker(presentEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if time.Now().Before(p.next) {
			continue
		}
		p.attempt(ctx)
	}
}

func (p *presenter) attempt(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	cert := p.certificate()
	_, err := p.present(bounded, cert)
	if ctx.Err() != nil {
		return // told to end
	}
	if err == nil {
		p.failures = 0
		p.outcome.add(nil)
		return
	}
	p.failures++
	p.next = time.Now().Add(min(firstRetry<<min(p.failures, 20), mostPresentRetry))
	if errors.Is(err, tunnel.ErrPresentUnknown) {
		p.next = time.Now().Add(mostPresentRetry)
	}
	if p.outcome.add(err) {
		p.log.Warn("the hub did not take the new certificate, trying again; the tunnel goes on with the one before until that expires", "reason", err)
	}
}
