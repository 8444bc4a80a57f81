package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/version"
)

// lastSpans is how long the last spans may take to be sent.
const lastSpans = 5 * time.Second

// observation is what an operator's tools see of the agent.
type observation struct {
	links *telemetry.Links
	// telemetry is nil unless metrics are asked for.
	telemetry *telemetry.Telemetry
	tracer    *telemetry.Tracer
	ports     []*port
}

// observe makes what requests and sessions tell of themselves to.
func (a *Agent) observe(budget *mux.Budget) (err error) {
	o := &a.observation
	o.links = telemetry.NewLinks()
	o.tracer, err = telemetry.NewTracer(context.Background(), telemetry.TracerConfig{
		Settings: a.cfg.Telemetry, Role: telemetry.RoleAgent, Version: version.String(), Instance: a.cfg.Name, Logger: a.log,
	})
	if err != nil {
		return err
	}
	a.observer.Tracer = o.tracer
	if a.cfg.MetricsListen != "" {
		o.telemetry, err = telemetry.New(telemetry.Config{
			Role: telemetry.RoleAgent, Health: a.Health, Endpoints: a.endpoints, Ready: a.ready, Links: o.links, Budget: budget, SpansLost: o.tracer.Lost, Logger: a.log,
		})
		if err != nil {
			return errors.Join(err, o.close())
		}
		a.observer.Metrics = o.telemetry.Metrics()
	}
	if a.cfg.DebugListen != "" {
		a.observer.Live = telemetry.NewLive()
	}
	return nil
}

// listen serves what is asked for until close.
func (o *observation) listen(ctx context.Context, a *Agent) error {
	if o.telemetry != nil {
		server, err := o.telemetry.Listen(ctx, a.cfg.MetricsListen)
		if err != nil {
			return fmt.Errorf("metricsListen: %w", err)
		}
		a.log.Info("metrics are served", "listen", server.Addr().String())
		o.serve(server)
	}
	if a.cfg.DebugListen != "" {
		server, err := telemetry.ListenDebug(ctx, a.cfg.DebugListen, telemetry.DebugConfig{Links: o.links, Live: a.observer.Live, Logger: a.log})
		if err != nil {
			return fmt.Errorf("debugListen: %w", err)
		}
		a.log.Info("debug pages are served", "listen", server.Addr().String())
		o.serve(server)
	}
	return nil
}

func (o *observation) serve(server *telemetry.Server) {
	p := &port{server: server, ended: make(chan error, 1)}
	o.ports = append(o.ports, p)
	go p.serve()
}

// close frees the ports and sends the last spans.
func (o *observation) close() error {
	var errs []error
	for _, p := range o.ports {
		errs = append(errs, p.close())
	}
	o.ports = nil
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	if err := o.tracer.Close(ctx); err != nil {
		errs = append(errs, err)
	}
	if o.telemetry != nil {
		errs = append(errs, o.telemetry.Close())
	}
	return errors.Join(errs...)
}

// port is one that an operator's tools reach.
type port struct {
	server *telemetry.Server
	ended  chan error
}

// serve ends with close.
func (p *port) serve() { p.ended <- p.server.Serve() }

func (p *port) close() error {
	err := p.server.Close()
	if served := <-p.ended; served != nil && !errors.Is(served, net.ErrClosed) {
		err = errors.Join(err, served)
	}
	return err
}
