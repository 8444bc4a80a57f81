package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/culvertdev/culvert/internal/telemetry"
)

// Health returns what the agent keeps current by itself: its certificate, the
// hub's CAs, and what belongs to the proxy. Nothing in it is secret.
func (a *Agent) Health() []Health {
	all := a.trust.health()
	for _, w := range a.way.Watched() {
		all = append(all, healthOf(w.Status()))
	}
	return all
}

// Reload reads every certificate, key and CA again, now; they are followed
// without it as well. A file that cannot be used leaves what was there before in
// force, and is in the error, and in Health.
func (a *Agent) Reload() error {
	err := a.trust.reload()
	for _, w := range a.way.Watched() {
		err = errors.Join(err, w.Reload())
	}
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	for _, h := range a.Health() {
		args := []any{"what", h.Name, "file", h.File}
		if !h.NotAfter.IsZero() {
			args = append(args, "subject", h.Subject, "expires", timestamp(h.NotAfter))
		}
		a.log.Info("read again", args...)
	}
	return nil
}

// errNotConnected is why an agent is not ready.
var errNotConnected = errors.New("no connection to the hub")

func (a *Agent) ready() error {
	if !a.Connected() {
		return errNotConnected
	}
	return nil
}

// metrics is the port of an operator's tools; nil is none.
type metrics struct {
	telemetry *telemetry.Telemetry
	server    *telemetry.Server
	ended     chan error
}

// serveMetrics listens, where that is asked for.
func (a *Agent) serveMetrics(ctx context.Context) (*metrics, error) {
	if a.cfg.MetricsListen == "" {
		return nil, nil
	}
	t, err := telemetry.New(telemetry.Config{Health: a.Health, Ready: a.ready, Logger: a.log})
	if err != nil {
		return nil, err
	}
	server, err := t.Listen(ctx, a.cfg.MetricsListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("metricsListen: %w", err), t.Close())
	}
	a.log.Info("metrics are served", "listen", server.Addr().String())
	m := &metrics{telemetry: t, server: server, ended: make(chan error, 1)}
	go m.serve()
	return m, nil
}

// serve ends with close.
func (m *metrics) serve() { m.ended <- m.server.Serve() }

func (m *metrics) close() error {
	if m == nil {
		return nil
	}
	err := m.server.Close()
	if served := <-m.ended; served != nil && !errors.Is(served, net.ErrClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, m.telemetry.Close())
}
