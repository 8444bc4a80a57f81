// Package server is a Culvert hub that can be embedded in another program; the
// binary culvert-hub is a thin shell over it.
//
//	hub, err := server.New(ctx, server.Config{State: "/var/lib/culvert", TokenFile: "tokens.csv"})
//	if err != nil { … }
//	err = hub.Run(ctx)
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/front/sni"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/policy/review"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

// Server is a hub. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	trust    *trust
	store    *store.Store
	registry *registry.Registry
	identity *identity.Chain
	accounts *identity.ServiceAccounts // nil without rules

	policy     policy.Authorizer
	policyFile *policy.File     // nil without one
	reviewer   *review.Reviewer // nil unless asked for
	limits     *limit.Limits    // nil without bounds
	audit      *audit.Log       // nil without sinks
	raw        sync.WaitGroup   // raw sessions whose end is still to be recorded

	observation observation
	observer    telemetry.Observer

	names  *names
	front  *https.Handler
	sni    *sni.Server
	tcp    *tcpFronts
	web    *http.Server
	admin  *admin.Handler
	socket *admin.Server
	enrol  *service.Server
	tunnel *acceptor.Server
	// programs are clients that speak the tunnel's frames.
	programs *programs
	ports    []*front.Port

	balancers front.Balancers
	inherited *inherited
}

// New checks cfg, loads or creates the hub's state, and listens; Run serves. The
// context bounds the set-up only. A Server that is never run must be closed.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("hub configuration: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, inherited: &inherited{listeners: cfg.Listeners}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// The store first: its lock keeps a second hub out of the state folder.
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if s.store, err = store.Open(filepath.Join(cfg.State, "hub.db")); err != nil {
		return nil, fmt.Errorf("hub store: %w", err)
	}
	if s.trust, err = loadTrust(cfg, s.store.CheckCertificate, s.store.CheckForeignCertificate); err != nil {
		return nil, err
	}
	s.registry = registry.New(registry.Config{Known: s.known})
	budget := mux.NewBudget(cfg.Memory.Value() / 2)
	if err := s.observe(ctx, budget); err != nil {
		return nil, err
	}
	if err := s.newAccess(); err != nil {
		return nil, err
	}
	if err := s.newFront(ctx); err != nil {
		return nil, err
	}
	enrolment, err := s.newEnrolment(ctx)
	if err != nil {
		return nil, err
	}
	s.enrol = service.NewServer(enrolment)
	s.tunnel = acceptor.NewServer(acceptor.ServerConfig{
		Cluster:  s.trust.cluster,
		Register: s.register,
		Renew:    enrolment.Renew,
		Metrics:  s.observer.Metrics,
		Mux: mux.Config{
			Hello:  wire.Hello{Version: version.String()},
			Budget: budget,
		},
		Logger: s.log,
	})
	if s.programs, err = s.newPrograms(budget); err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	if s.socket, err = s.admin.Listen(filepath.Join(cfg.State, admin.Socket)); err != nil {
		return nil, err
	}
	return s, nil
}

// newFront makes what stands between a client's request and the registry.
func (s *Server) newFront(ctx context.Context) (err error) {
	who := s.cfg.identity()
	who.ClientCA = s.trust.users
	if s.identity, err = identity.New(context.WithoutCancel(ctx), *who, s.log); err != nil {
		return fmt.Errorf("hub identity: %w", err)
	}
	mapper, err := identity.NewMapper(*who)
	if err != nil {
		return fmt.Errorf("hub identity: %w", err)
	}
	hosts, err := s.cfg.hosts()
	if err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	s.names = newNames(s.cfg, hosts, s.trust)
	s.sni = sni.New(sni.Config{Sessions: sessions{s}, Certificate: s.identity.ByCertificate, Logger: s.log})
	s.front, err = https.New(https.Config{
		HostOf: s.names.hostOf, Dial: s.dial, Choose: s.registry.Choose, Identify: s.identity.Identify, Map: mapper.Map,
		Policy: s.policy, Labels: s.labels, Limits: s.limits, Audit: s.audit, Observer: s.observer, HeaderBytes: s.cfg.HeaderBytes,
		Logger: s.log, CA: s.trust.serving.bundle, Health: s.Health, Admin: s.serveAdmin,
		Kubeconfig: s.kubeconfig, Clusters: s.clusterNames, Self: s.self(),
	})
	if err != nil {
		return fmt.Errorf("hub front end: %w", err)
	}
	s.web = s.front.Server()
	if s.tcp, err = s.newTCPFronts(); err != nil {
		return fmt.Errorf("hub front end: %w", err)
	}
	s.tcp.share(s.web)
	s.admin, err = admin.New(admin.Config{Hub: administration{s}, Logger: s.log})
	return err
}

// newEnrolment makes what turns credentials into certificates of agents.
func (s *Server) newEnrolment(ctx context.Context) (*service.Service, error) {
	cfg := service.Config{
		Issuer: s.trust.authorities[pki.RoleAgents], State: s.store, TrustDomain: s.cfg.TrustDomain,
		Lifetime: DefaultAgentLifetime, HubCA: s.hubCA, Logger: s.log,
	}
	if c := s.cfg.Certificates; c != nil && c.AgentLifetime.Duration > 0 {
		cfg.Lifetime = c.AgentLifetime.Duration
	}
	if rules := s.cfg.Enrolment.rules(); len(rules) > 0 {
		accounts, err := identity.NewServiceAccounts(context.WithoutCancel(ctx), *s.cfg.identity().TokenReview, rules, s.log)
		if err != nil {
			return nil, fmt.Errorf("enrolment.serviceAccounts: %w", err)
		}
		s.accounts = accounts
		cfg.Accounts = accounts
	}
	return service.New(cfg)
}

// hubCA is what agents have to trust for the hub, PEM; nil for their systems' CAs,
// which is where the name that agents are told has a public certificate.
func (s *Server) hubCA() []byte {
	host, _, err := net.SplitHostPort(s.advertised())
	if err == nil && s.trust.serving.public(host) {
		return nil
	}
	return s.trust.serving.bundle()
}

func (s *Server) listen(ctx context.Context) error {
	both := front.Config{
		TunnelProtocol: tunnel.Protocol, Tunnel: s.trust.agents(),
		EnrolProtocol: enrol.Protocol, Enrol: s.trust.newcomers(),
		ClientProtocol: tunnel.ClientProtocol, Client: s.trust.programs(),
		Web: s.names.web, ByName: s.names.byName, Logger: s.log,
	}
	var err error
	if s.balancers, err = s.cfg.balancers(); err != nil {
		return err
	}
	both.Balancers = s.balancers
	agents := both
	agents.Web, agents.ByName, agents.Client = nil, nil, nil
	if err := s.listenOn(ctx, "listen", s.cfg.Listen, both); err != nil {
		return err
	}
	if err := s.listenOn(ctx, "agentListen", s.cfg.AgentListen, agents); err != nil {
		return err
	}
	if err := s.tcp.listen(ctx, s); err != nil {
		return err
	}
	return s.inherited.rest()
}

func (s *Server) listenOn(ctx context.Context, field string, addresses []string, cfg front.Config) error {
	for _, address := range addresses {
		ln, err := s.inherited.open(ctx, address)
		if err != nil {
			return listenError(field, address, err)
		}
		s.ports = append(s.ports, front.NewPort(ln, cfg))
	}
	return nil
}

// listenError names the setting and, where it is known, what mends it.
func listenError(field, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %s is in use: end what listens there, or choose another address: %w", field, address, err)
	}
	return fmt.Errorf("%s: %s: %w", field, address, err)
}

// Addr returns the first address that clients and agents reach.
func (s *Server) Addr() net.Addr { return s.ports[0].Addr() }

// ServingCA returns the CAs that clients need for the hub's certificates as they
// are now, PEM; nil where those of their systems do.
func (s *Server) ServingCA() []byte { return s.trust.serving.bundle() }

// Run serves until ctx ends, then drains for at most Config.DrainTimeout and
// frees everything. A listener that fails ends it with an error.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 6*len(s.ports)+2*len(s.tcp.listeners)+4)
	serve := func(what string, f func() error) {
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			failed <- fmt.Errorf("%s: %w", what, err)
		}
	}
	running := make(chan struct{})
	loops := 0
	start := func(what string, f func() error) {
		loops++
		go func() { serve(what, f); running <- struct{}{} }()
	}
	for _, p := range s.ports {
		start("listener", p.Serve)
		start("https", func() error { return s.web.Serve(eitherListener{p.Web()}) })
		start("streams", func() error { return s.sni.Serve(p.Streams()) })
		start("tunnel", func() error { return s.tunnel.Serve(p.Tunnel()) })
		start("enrolment", func() error { return s.enrol.Serve(p.Enrol()) })
		start("clients", func() error { return s.programs.links.Serve(p.Clients()) })
	}
	start("https of clients", func() error { return s.web.Serve(s.programs.front.Web()) })
	s.tcp.start(s, start)
	start("administration", s.socket.Serve)
	for what, port := range map[string]*telemetry.Server{"metrics": s.observation.port, "debug": s.observation.debug} {
		if port != nil {
			start(what, port.Serve)
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var tasks sync.WaitGroup
	tasks.Go(func() { s.keepHouse(background) })
	if s.trust.serving.acme != nil {
		tasks.Go(func() { s.trust.serving.acme.run(background) })
	}
	for _, p := range s.ports {
		s.log.Info("hub is serving", "listen", p.Addr().String(), "version", version.String())
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	err = errors.Join(err, s.drain())
	tasks.Wait() // they use the store
	err = errors.Join(err, s.Close())
	for range loops {
		<-running
	}
	s.log.Info("hub has ended")
	return err
}

// drain lets requests, then sessions, go on for the drain timeout.
func (s *Server) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout.Duration)
	defer cancel()
	// Nobody waits longer for an audit sink that takes nothing.
	defer context.AfterFunc(ctx, s.audit.Unblock)()
	if err := s.drainPorts(ctx); err != nil {
		return fmt.Errorf("close listener: %w", err)
	}
	if err := s.tcp.close(); err != nil {
		return err
	}
	programs := s.programs.leave(ctx)
	err := errors.Join(s.web.Shutdown(ctx), s.tcp.shutdown(ctx))
	s.front.Close()
	s.enrol.Shutdown(ctx)
	if err != nil { // time is over
		s.log.Warn("requests were cut at the end of the drain", "timeout", s.cfg.DrainTimeout.Duration)
		err = s.web.Close()
	}
	if cut := s.tunnel.Shutdown(ctx, wire.CodeDraining, "the hub is stopping"); cut != nil {
		s.log.Warn("sessions were cut at the end of the drain", "timeout", s.cfg.DrainTimeout.Duration)
	}
	<-programs
	s.sni.Close()
	s.raw.Wait() // every link is gone, and each session's end is being recorded
	return err
}

// handshakeGrace is how long clients may take to finish a handshake that is under way
// when the hub is told to end, and at most half of the drain timeout; net/http waits as
// long for a first request.
const handshakeGrace = 5 * time.Second

// drainPorts stops accepting on all ports at once, and loses nobody whom it has
// accepted.
func (s *Server) drainPorts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(handshakeGrace, s.cfg.DrainTimeout.Duration/2))
	defer cancel()
	ports := slices.Clone(s.ports)
	for _, l := range s.tcp.listeners {
		if l.port != nil {
			ports = append(ports, l.port)
		}
	}
	errs := make([]error, len(ports))
	var drains sync.WaitGroup
	for i, p := range ports {
		drains.Go(func() { errs[i] = p.Drain(ctx) })
	}
	drains.Wait()
	return errors.Join(errs...)
}

// Close frees what New made. Run does it by itself; only a Server that was never
// run needs it.
func (s *Server) Close() error {
	errs := []error{s.inherited.close()}
	for _, p := range s.ports {
		errs = append(errs, p.Close())
	}
	errs = append(errs, s.tcp.close())
	if s.socket != nil {
		errs = append(errs, s.socket.Close())
	}
	if s.sni != nil {
		s.sni.Close()
	}
	if s.front != nil {
		s.front.Close()
	}
	// What is left to be told is bounded in time, by nothing that a caller can ask for.
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	errs = append(errs, s.closeAccess(ctx), s.observation.close(ctx))
	if s.accounts != nil {
		s.accounts.Close()
	}
	if s.trust != nil && s.trust.serving.acme != nil {
		s.trust.serving.acme.close()
	}
	if s.identity != nil {
		s.identity.Close()
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// lastWords is how long the last audit lines and spans may take to be written.
const lastWords = 5 * time.Second

// known tells whether a cluster has ever joined.
func (s *Server) known(name string) (bool, error) {
	_, ok, err := s.store.Cluster(name)
	return ok, err
}

// register enters an agent's link where requests find it.
func (s *Server) register(p acceptor.Peer, link *mux.Link) (remove func()) {
	if err := s.store.SawCluster(p.Cluster, p.Hello.Version, p.Hello.Labels, time.Now()); err != nil {
		s.log.Error("cannot record the cluster; it is unknown while it is away after a restart", "cluster", p.Cluster, "reason", err)
	}
	given, err := s.storedLabels(p.Cluster)
	if err != nil {
		s.log.Error("cannot read the cluster's labels; each request looks again", "cluster", p.Cluster, "reason", err)
	}
	leave := s.registry.Add(registry.Agent{
		Cluster: p.Cluster, Name: p.Hello.Name, Instance: p.Hello.Instance, Version: p.Hello.Version,
		Labels: p.Hello.Labels, Given: given, Remote: p.Addr,
	}, link)
	forget := s.observation.links.Add(telemetry.LinkInfo{
		Cluster: p.Cluster, Name: s.registry.NameOf(p.Cluster, link), Instance: p.Hello.Instance, Version: p.Hello.Version, Remote: p.Addr,
	}, link)
	return func() { leave(); forget() }
}

// Agent is one connected agent.
type Agent struct {
	Cluster, Version, Remote string
	// Name is what audit lines call it.
	Name   string
	Labels map[string]string
	Since  time.Time
	// RTT is the round trip of the tunnel, 0 before the first measurement.
	RTT time.Duration
	// Sessions counts those that are open.
	Sessions int
}

// AgentsChanged returns what is closed when an agent comes or goes after the call.
func (s *Server) AgentsChanged() <-chan struct{} { return s.registry.Changed() }

// Agents returns the connected agents, oldest first.
func (s *Server) Agents() []Agent {
	var out []Agent
	for _, a := range s.registry.Agents("") {
		out = append(out, Agent{
			Cluster: a.Cluster, Name: a.Name, Version: a.Version, Remote: a.Remote.String(), Labels: a.Labels,
			Since: a.Since, RTT: a.Stats.RTT, Sessions: a.Stats.Sessions,
		})
	}
	return out
}
