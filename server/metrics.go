package server

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/culvertdev/culvert/internal/telemetry"
)

// metrics is the port of an operator's tools.
type metrics struct {
	telemetry *telemetry.Telemetry
	server    *telemetry.Server
}

func (s *Server) newMetrics(ctx context.Context) (*metrics, error) {
	t, err := telemetry.New(telemetry.Config{Health: s.Health, Logger: s.log})
	if err != nil {
		return nil, err
	}
	server, err := t.Listen(ctx, s.cfg.MetricsListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("metricsListen: %w", err), t.Close())
	}
	s.log.Info("metrics are served", "listen", server.Addr().String())
	return &metrics{telemetry: t, server: server}, nil
}

func (m *metrics) close() error { return errors.Join(m.server.Close(), m.telemetry.Close()) }

// MetricsAddr returns the address of the metrics; nil when they are not served.
func (s *Server) MetricsAddr() net.Addr {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.server.Addr()
}
