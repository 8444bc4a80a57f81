package server

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/version"
)

// observation is what an operator's tools see of the hub.
type observation struct {
	links *telemetry.Links
	// telemetry and port are nil unless metrics are asked for, debug unless that is.
	telemetry   *telemetry.Telemetry
	tracer      *telemetry.Tracer
	port, debug *telemetry.Server
}

// observe makes what requests and sessions tell of themselves to, and listens.
func (s *Server) observe(ctx context.Context, budget *mux.Budget) (err error) {
	o := &s.observation
	o.links = telemetry.NewLinks()
	tracing := telemetry.TracerConfig{Role: telemetry.RoleHub, Version: version.String(), Instance: s.cfg.Name, Logger: s.log}
	if s.cfg.Telemetry != nil {
		tracing.Settings = *s.cfg.Telemetry
	}
	if o.tracer, err = telemetry.NewTracer(ctx, tracing); err != nil {
		return err
	}
	s.observer.Tracer = o.tracer
	if s.cfg.MetricsListen != "" {
		o.telemetry, err = telemetry.New(telemetry.Config{
			Role: telemetry.RoleHub, Health: s.Health, Links: o.links, Budget: budget, SpansLost: o.tracer.Lost, Logger: s.log,
		})
		if err != nil {
			return err
		}
		s.observer.Metrics = o.telemetry.Metrics()
		if o.port, err = o.telemetry.Listen(ctx, s.cfg.MetricsListen); err != nil {
			return fmt.Errorf("metricsListen: %w", err)
		}
		s.log.Info("metrics are served", "listen", o.port.Addr().String())
	}
	if s.cfg.DebugListen != "" {
		s.observer.Live = telemetry.NewLive()
		o.debug, err = telemetry.ListenDebug(ctx, s.cfg.DebugListen, telemetry.DebugConfig{Links: o.links, Live: s.observer.Live, Logger: s.log})
		if err != nil {
			return fmt.Errorf("debugListen: %w", err)
		}
		s.log.Info("debug pages are served", "listen", o.debug.Addr().String())
	}
	return nil
}

// close sends the last spans, for as long as ctx lets it, and frees the ports.
func (o *observation) close(ctx context.Context) error {
	var errs []error
	for _, port := range []*telemetry.Server{o.port, o.debug} {
		if port != nil {
			errs = append(errs, port.Close())
		}
	}
	if err := o.tracer.Close(ctx); err != nil {
		errs = append(errs, err)
	}
	if o.telemetry != nil {
		errs = append(errs, o.telemetry.Close())
	}
	return errors.Join(errs...)
}

// MetricsAddr returns the address of the metrics; nil when they are not served.
func (s *Server) MetricsAddr() net.Addr { return addressOf(s.observation.port) }

// DebugAddr returns the address of the debug pages; nil when they are not served.
func (s *Server) DebugAddr() net.Addr { return addressOf(s.observation.debug) }

func addressOf(port *telemetry.Server) net.Addr {
	if port == nil {
		return nil
	}
	return port.Addr()
}
