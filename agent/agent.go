// Package agent is a Culvert agent that can be embedded in another program; the
// binary culvert-agent is a thin shell over it.
//
//	cfg := agent.Config{State: "/var/lib/culvert-agent"}
//	err := agent.Join(ctx, cfg, agent.JoinConfig{Token: token})
//	if err != nil { … }
//	a, err := agent.New(cfg)
//	if err != nil { … }
//	err = a.Run(ctx)
//
// [Join] gets a certificate with a join token, once; [Agent.Run] renews it over
// the tunnel at two thirds of its life, with a new key each time, and asks for the
// hub's CAs every hour. Certificates that somebody else makes are files instead:
// Config.CertDir, or Config.Cert and Config.Key. Those are followed, and the hub is
// shown a new one over the tunnel, which goes on.
package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/telemetry"
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
	trust    trust
	way      *outbound.Dialer
	hub      string
	draining atomic.Bool

	status      status       // what the hub is told
	policy      *policy.File // nil without one
	observation observation
	observer    telemetry.Observer
}

// New checks cfg and reads the files it names; Run connects.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("agent configuration: %w", err)
	}
	a := &Agent{cfg: cfg, log: cfg.Logger}
	var err error
	if a.trust, err = newTrust(cfg); err != nil {
		return nil, err
	}
	if a.way, err = outbound.New(cfg.Proxy, a.log); err != nil {
		return nil, err
	}
	budget := mux.NewBudget(cfg.Memory.Value() / 2)
	if err := a.observe(budget); err != nil {
		return nil, err
	}
	if err := a.newUpstream(); err != nil {
		return nil, errors.Join(err, a.observation.close())
	}
	a.hub, _ = a.trust.hub()
	a.dialer = tunnel.NewDialer(tunnel.DialerConfig{
		Address: a.hub,
		TLS: func() *tls.Config {
			_, name := a.trust.hub()
			return &tls.Config{
				MinVersion: tls.VersionTLS13,
				ServerName: name,
				RootCAs:    a.trust.roots(),
				// Given even to a hub that names other authorities, so that the refusal
				// is the hub's and says why.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return a.trust.certificate(), nil
				},
			}
		},
		Dial: a.way.DialContext,
		Mux: mux.Config{
			Hello:   wire.Hello{Version: version.String(), Labels: cfg.Labels, Instance: rand.Text(), Name: cfg.Name},
			Hop:     wire.HopAgent,
			Budget:  budget,
			Handler: a.handle,
			Status:  a.status.now.Load,
		},
		Logger: a.log,
	})
	a.status.dialer.Store(a.dialer)
	a.observation.links.Follow(telemetry.LinkInfo{}, a.dialer.Link)
	return a, nil
}

// newUpstream makes the way to targets, with the rules about them.
func (a *Agent) newUpstream() error {
	cfg := a.cfg
	services, addresses, err := cfg.rules()
	if err != nil {
		return err
	}
	special, err := cfg.specialAddresses()
	if err != nil {
		return err
	}
	kubernetes := cfg.Kubernetes
	if kubernetes == nil {
		if kubernetes, err = upstream.LoadKubernetes(cfg.Kubeconfig, cfg.Context); err != nil {
			return fmt.Errorf("agent credentials: %w", err)
		}
	}
	to := upstream.Config{
		Kubernetes: kubernetes, KubernetesEndpoints: cfg.KubernetesEndpoints, KubernetesBalance: cfg.KubernetesBalance,
		Probe: cfg.KubernetesProbe, KubernetesChanged: a.status.changed,
		Services: services, Addresses: addresses, SpecialAddresses: special,
		ReadOnly: cfg.ReadOnly, Impersonation: cfg.Impersonation, PassThrough: cfg.PassThrough,
		ServiceCA: cfg.ServiceCA, DNSServer: cfg.DNSServer, Observer: a.observer, Logger: cfg.Logger,
	}
	if cfg.Policy != "" {
		if a.policy, err = policy.Open(cfg.Policy, policy.Options{Agent: true}, a.log); err != nil {
			return fmt.Errorf("agent %w", err)
		}
		to.Policy = a.policy
	}
	if a.upstream, err = upstream.New(to); err != nil {
		return fmt.Errorf("agent targets: %w", err)
	}
	return nil
}

// Run keeps the tunnel until ctx ends, then tells the hub, lets sessions go on
// for at most Config.DrainTimeout, and frees everything.
func (a *Agent) Run(ctx context.Context) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	err := a.observation.listen(run, a)
	if err != nil {
		return errors.Join(err, a.drain(), a.observation.close())
	}
	ended := make(chan error, 1)
	go func() { ended <- a.dialer.Run(run) }()
	var loops sync.WaitGroup
	if state, ok := a.trust.(*stateTrust); ok {
		r := newRenewer(state, a.dialer.Conn)
		loops.Go(func() { r.run(run) })
	} else {
		p := newPresenter(a.trust, a.dialer, a.log)
		loops.Go(func() { p.run(run) })
	}
	a.log.Info("agent is running", "hub", a.hub, "version", version.String())
	<-ctx.Done()
	err = a.drain()
	stop()
	loops.Wait()
	err = errors.Join(err, <-ended, a.observation.close())
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
			a.observer.Metrics.Panicked("session")
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
	about := telemetry.OpenStart{Target: target, RequestID: in.RequestID(), Trace: in.Trace()}
	if !target.Raw() {
		_, opening := a.observer.StartOpen(ctx, about)
		if err := a.upstream.Check(target); err != nil {
			opening.End(err)
			refuse(in, log, err)
			return
		}
		s, err := in.Accept()
		opening.End(err)
		if err != nil {
			return // the opener gave up
		}
		a.upstream.Serve(s, target)
		return
	}
	ctx, seen := a.observer.StartSession(ctx, telemetry.SessionStart{OpenStart: about})
	about.Trace = "" // the session's span is the parent
	ctx, opening := a.observer.StartOpen(ctx, about)
	conn, err := a.upstream.Dial(ctx, target) // checks, too
	if err != nil {
		opening.End(err)
		seen.End(telemetry.SessionEnd{Err: err})
		refuse(in, log, err)
		return
	}
	s, err := in.Accept()
	opening.End(err)
	if err != nil { // the opener gave up
		seen.End(telemetry.SessionEnd{Err: err})
		log.Info("session cancelled", "reason", errors.Join(err, conn.Close()))
		return
	}
	start := time.Now()
	r := splice.Join(s, conn, wire.HopTarget)
	seen.End(telemetry.SessionEnd{Err: r.Err, Received: r.AToB, Sent: r.BToA})
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
