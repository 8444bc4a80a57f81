package subject

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/relay"
	"github.com/culvertdev/culvert/bench/internal/report"
)

// Tunnel is something that can be started.
type Tunnel interface {
	// Name is the subject's in the results.
	Name() string
	// Start runs it until it works. The caller closes what it returns.
	Start(ctx context.Context, env *Env) (*Subject, error)
}

// AgentHost is a tunnel whose hub holds many agents.
type AgentHost interface {
	Tunnel
	// StartHub runs a hub alone.
	StartHub(ctx context.Context, env *Env) (*Subject, error)
	// AddAgents connects n more agents of different clusters to it.
	AddAgents(ctx context.Context, env *Env, s *Subject, n int) error
}

// Subject is a tunnel that runs. Close it.
type Subject struct {
	Name string
	// Dial opens sessions.
	Dial load.Dialer
	// Web is the way to the trivial service and Kube that to the API server; nil
	// where there is none.
	Web, Kube *load.Web
	// Processes are all of the tunnel's, Hub is the one beside the client.
	Processes []*process.Process
	Hub       *process.Process

	folder string
	hub    hubAddresses
	agents int // how many idle clusters have a certificate
}

// CPU returns the processor time that all processes of the tunnel have used.
func (s *Subject) CPU() (time.Duration, error) {
	var total time.Duration
	for _, p := range s.Processes {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// Resident returns the settled memory of all processes of the tunnel, in bytes.
func (s *Subject) Resident(ctx context.Context, interval time.Duration) (int64, error) {
	var total int64
	for _, p := range s.Processes {
		n, err := p.Settled(ctx, interval)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// quietTime bounds the wait of Quiet.
const quietTime = 30 * time.Second

// Quiet waits until the tunnel has hardly anything to do: until its processes use
// at most a tenth of a processor between two looks, apart by interval.
func (s *Subject) Quiet(ctx context.Context, interval time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	last, err := s.CPU()
	if err != nil {
		return err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not come to rest: %w", s.Name, context.Cause(ctx))
		}
		now, err := s.CPU()
		if err != nil {
			return err
		}
		if now-last <= interval/10 {
			return nil
		}
		last = now
	}
}

// Close ends its processes, last started first.
func (s *Subject) Close() error {
	var errs []error
	for _, p := range slices.Backward(s.Processes) {
		errs = append(errs, p.Stop())
	}
	s.Processes = nil
	return errors.Join(errs...)
}

// add starts one more process of the subject.
func (s *Subject) add(ctx context.Context, side Side, spec process.Spec) (*process.Process, error) {
	spec.Dir, spec.Within = s.folder, side.Within
	p, err := process.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	s.Processes = append(s.Processes, p)
	return p, nil
}

// works waits until every way through the subject works.
func (s *Subject) works(ctx context.Context) error {
	if s.Dial != nil {
		if err := s.Dial.Probe(ctx); err != nil {
			return fmt.Errorf("no session through %s: %w", s.Name, err)
		}
	}
	for _, web := range []*load.Web{s.Web, s.Kube} {
		if web == nil {
			continue
		}
		if err := web.Probe(ctx); err != nil {
			return fmt.Errorf("no request through %s: %w", s.Name, err)
		}
	}
	return nil
}

// begin starts a subject: parts adds its processes.
func begin(ctx context.Context, env *Env, name string, parts func(*Subject) error) (*Subject, error) {
	s := &Subject{Name: name}
	var err error
	if s.folder, err = env.folder(name); err != nil {
		return nil, err
	}
	if err = parts(s); err == nil {
		err = s.works(ctx)
	}
	if err == nil {
		return s, nil
	}
	for _, p := range s.Processes {
		err = fmt.Errorf("%w\n%s", err, p.Tail())
	}
	return nil, errors.Join(err, s.Close())
}

// Reference is the pair of relays, and the pair of HTTP proxies.
type Reference struct{}

// Name implements [Tunnel].
func (Reference) Name() string { return report.Reference }

// Start implements [Tunnel].
func (r Reference) Start(ctx context.Context, env *Env) (*Subject, error) {
	return begin(ctx, env, r.Name(), func(s *Subject) error {
		var far, near string
		_, err := s.add(ctx, env.Far, process.Spec{Name: "far", Role: relay.FarRole, Ready: &far, Config: relay.FarConfig{
			Host: env.Far.Host, Target: env.Service.TCP, Cert: env.Cert, Key: env.Key,
		}})
		if err != nil {
			return err
		}
		s.Hub, err = s.add(ctx, env.Near, process.Spec{Name: "near", Role: relay.NearRole, Ready: &near, Config: relay.NearConfig{
			Host: env.Near.Host, Target: far, CA: env.CA,
		}})
		if err != nil {
			return err
		}
		s.Dial = load.Port(near)
		s.Web, err = r.chain(ctx, env, s, "web", "https://"+env.Service.Web, env.CA, "reference-token")
		if err != nil || env.Kube == nil {
			return err
		}
		s.Kube, err = r.chain(ctx, env, s, "kube", env.Kube.URL, env.Kube.CA, env.Kube.Token)
		if err == nil {
			s.Kube.URL += env.Kube.Path
		}
		return err
	})
}

// chain starts two HTTP proxies to base.
func (Reference) chain(ctx context.Context, env *Env, s *Subject, name, base, ca, token string) (*load.Web, error) {
	var far, near string
	_, err := s.add(ctx, env.Far, process.Spec{Name: name + "-far", Role: relay.ProxyRole, Ready: &far, Config: relay.ProxyConfig{
		Host: env.Far.Host, Target: base, Cert: env.Cert, Key: env.Key, CA: ca,
		Header: map[string][]string{
			"Authorization":     {"Bearer " + token},
			"Impersonate-User":  {user},
			"Impersonate-Group": {"system:authenticated"},
		},
	}})
	if err != nil {
		return nil, err
	}
	_, err = s.add(ctx, env.Near, process.Spec{Name: name + "-near", Role: relay.ProxyRole, Ready: &near, Config: relay.ProxyConfig{
		Host: env.Near.Host, Target: far, Cert: env.Cert, Key: env.Key, CA: env.CA,
	}})
	if err != nil {
		return nil, err
	}
	return &load.Web{URL: near, Roots: env.Roots}, nil
}

// Direct is no tunnel: a TLS connection to the service for each session.
type Direct struct{}

// Name implements [Tunnel].
func (Direct) Name() string { return "direct" }

// Start implements [Tunnel].
func (d Direct) Start(ctx context.Context, env *Env) (*Subject, error) {
	return begin(ctx, env, d.Name(), func(s *Subject) error {
		config := &tls.Config{RootCAs: env.Roots, MinVersion: tls.VersionTLS13}
		s.Dial = load.Secure(env.Service.TLS, config)
		s.Web = &load.Web{URL: "https://" + env.Service.Web, Roots: env.Roots}
		return nil
	})
}
