// Package agent is a Culvert agent that can be embedded in another program; the
// binary culvert-agent is a thin shell over it.
//
//	a, err := agent.New(agent.Config{Hub: "hub.example.com:443", HubCA: "ca.crt", Cert: "tls.crt", Key: "tls.key"})
//	if err != nil { … }
//	err = a.Run(ctx)
package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

// Agent keeps a tunnel to a hub and serves the sessions that the hub opens. Its
// methods are safe for concurrent use.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	upstream *upstream.Upstream
	dialer   *tunnel.Dialer
	draining atomic.Bool
}

// New checks cfg and reads the files it names; Run connects.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("agent configuration: %w", err)
	}
	a := &Agent{cfg: cfg, log: cfg.Logger}
	pair, err := pki.LoadKeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("agent certificate: %w", err)
	}
	hubCA, err := pki.LoadBundle(cfg.HubCA)
	if err != nil {
		return nil, fmt.Errorf("hub CA: %w", err)
	}
	if a.upstream, err = newUpstream(cfg); err != nil {
		return nil, err
	}
	a.dialer = tunnel.NewDialer(tunnel.DialerConfig{
		Address: cfg.Hub,
		TLS: func() *tls.Config {
			return &tls.Config{
				MinVersion:           tls.VersionTLS13,
				ServerName:           cfg.HubName,
				RootCAs:              hubCA.Pool(),
				GetClientCertificate: pair.GetClientCertificate,
			}
		},
		Mux: mux.Config{
			Hello:   wire.Hello{Version: version.String(), Labels: cfg.Labels, Instance: rand.Text()},
			Hop:     wire.HopAgent,
			Budget:  mux.NewBudget(mux.DefaultBudget),
			Handler: a.handle,
		},
		Logger: a.log,
	})
	return a, nil
}

func newUpstream(cfg Config) (*upstream.Upstream, error) {
	services, addresses, err := cfg.rules()
	if err != nil {
		return nil, err
	}
	kubernetes := cfg.Kubernetes
	if kubernetes == nil {
		if kubernetes, err = upstream.LoadKubernetes(cfg.Kubeconfig, cfg.Context); err != nil {
			return nil, fmt.Errorf("agent credentials: %w", err)
		}
	}
	u, err := upstream.New(upstream.Config{
		Kubernetes: kubernetes, Services: services, Addresses: addresses,
		ServiceCA: cfg.ServiceCA, DNSServer: cfg.DNSServer, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("agent targets: %w", err)
	}
	return u, nil
}

// Run keeps the tunnel until ctx ends, then tells the hub, lets sessions go on
// for at most Config.DrainTimeout, and frees everything.
func (a *Agent) Run(ctx context.Context) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.dialer.Run(run) }()
	a.log.Info("agent is running", "hub", a.cfg.Hub, "version", version.String())
	<-ctx.Done()
	err := a.drain()
	stop()
	err = errors.Join(err, <-ended)
	a.log.Info("agent has ended")
	return err
}

// drain refuses new sessions, ends those that wait for a request, and lets the
// others go on for the drain timeout.
func (a *Agent) drain() error {
	a.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.DrainTimeout.Duration)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- a.dialer.Shutdown(ctx, wire.CodeDraining, "the agent is stopping") }()
	err := a.upstream.Close(ctx)
	if cut := <-drained; cut != nil {
		a.log.Warn("sessions were cut at the end of the drain", "timeout", a.cfg.DrainTimeout.Duration)
	}
	return err
}

// Connected tells whether the tunnel works now.
func (a *Agent) Connected() bool { return a.dialer.Link() != nil }

// handle decides about one session that the hub opens.
func (a *Agent) handle(ctx context.Context, in *mux.Incoming) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("session handler panicked", "panic", p, "stack", string(debug.Stack()))
			in.Refuse(wire.CodeInternal, wire.HopAgent, "internal error")
		}
	}()
	if a.draining.Load() {
		in.Refuse(wire.CodeDraining, wire.HopAgent, "the agent is stopping")
		return
	}
	target := in.Target()
	log := a.log.With("target", target.String(), "request_id", in.RequestID())
	if err := a.upstream.Check(target); err != nil {
		refuse(in, log, err)
		return
	}
	if target.Kind != wire.TargetAddress {
		s, err := in.Accept()
		if err != nil {
			return // the opener gave up
		}
		a.upstream.Serve(s, target)
		return
	}
	conn, err := a.upstream.Dial(ctx, target)
	if err != nil {
		refuse(in, log, err)
		return
	}
	s, err := in.Accept()
	if err != nil { // the opener gave up
		log.Info("session cancelled", "reason", errors.Join(err, conn.Close()))
		return
	}
	start := time.Now()
	r := splice.Join(s, conn, wire.HopTarget)
	log.Info("session ended", "sent", r.AToB, "received", r.BToA, "duration", time.Since(start).Round(time.Millisecond), "reason", reason(r.Err))
}

func reason(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}

// refuse tells the hub, and the log once, why a session is not opened.
func refuse(in *mux.Incoming, log *slog.Logger, err error) {
	code, hop, message := wire.CodeInternal, wire.HopAgent, "internal error"
	if f := fault.As(err); f != nil {
		code, hop = f.Code, f.Hop
		message = f.Error()
		if f.Err != nil {
			message = f.Err.Error()
		}
	}
	log.Info("session refused", "hop", hop.String(), "code", code.String(), "reason", err)
	in.Refuse(code, hop, message)
}
