package subject

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

const (
	// cluster is the one whose agent carries the load.
	cluster = "bench"
	// user is who the hub's token belongs to.
	user = "bench"
)

// Culvert is a hub with a plain TCP port for sessions, and an agent.
type Culvert struct{}

var _ AgentHost = Culvert{}

// Name implements [Tunnel].
func (Culvert) Name() string { return report.Culvert }

// Start implements [Tunnel].
func (c Culvert) Start(ctx context.Context, env *Env) (*Subject, error) {
	return begin(ctx, env, c.Name(), func(s *Subject) error {
		token, err := c.startHub(ctx, env, s)
		if err != nil {
			return err
		}
		pair, err := s.issue(cluster)
		if err != nil {
			return err
		}
		if err := c.startAgents(ctx, env, s, "agent", []keyPair{pair}); err != nil {
			return err
		}
		s.Dial = load.Port(s.hub.Entry)
		return c.ways(env, s, token)
	})
}

// ways fills in how requests reach the service and the API server.
func (Culvert) ways(env *Env, s *Subject, token string) error {
	roots, err := trustedPool(s.hubCA())
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(env.Service.Web)
	if err != nil {
		return fmt.Errorf("web service: %w", err)
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	base := "https://" + s.hub.Hub + "/" + cluster
	s.Web = &load.Web{Roots: roots, Header: header, URL: base + "/api/v1/namespaces/" + serviceNamespace +
		"/services/https:" + serviceName + ":" + port + "/proxy-service/"}
	if env.Kube != nil {
		s.Kube = &load.Web{Roots: roots, Header: header, URL: base + env.Kube.Path}
	}
	return nil
}

// StartHub implements [AgentHost].
func (c Culvert) StartHub(ctx context.Context, env *Env) (*Subject, error) {
	return begin(ctx, env, c.Name(), func(s *Subject) error {
		_, err := c.startHub(ctx, env, s)
		return err
	})
}

// startHub returns the token of the hub's one user.
func (Culvert) startHub(ctx context.Context, env *Env, s *Subject) (token string, err error) {
	token = rand.Text()
	tokens := filepath.Join(s.folder, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(token+","+user+","+user+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	rules := filepath.Join(s.folder, "policy.yaml")
	if err := os.WriteFile(rules, []byte(policyText()), 0o600); err != nil {
		return "", fmt.Errorf("policy: %w", err)
	}
	s.Hub, err = s.add(ctx, env.Near, process.Spec{Name: "hub", Role: hubRole, Ready: &s.hub, Config: hubConfig{
		Host: env.Near.Host, State: s.state(), TokenFile: tokens, Cluster: cluster, Target: env.Service.TCP,
		Policy: rules, Audit: filepath.Join(s.folder, "audit.log"), Cert: env.Cert, Key: env.Key,
	}})
	return token, err
}

// AddAgents implements [AgentHost].
func (c Culvert) AddAgents(ctx context.Context, env *Env, s *Subject, n int) error {
	pairs := make([]keyPair, n)
	for i := range pairs {
		s.agents++
		var err error
		if pairs[i], err = s.issue(fmt.Sprintf("idle-%d", s.agents)); err != nil {
			return err
		}
	}
	return c.startAgents(ctx, env, s, fmt.Sprintf("agents-%d", s.agents), pairs)
}

// startAgents runs agents in one process, ready when all are connected.
func (Culvert) startAgents(ctx context.Context, env *Env, s *Subject, name string, pairs []keyPair) error {
	cfg := agentConfig{
		Hub: s.hub.Hub, HubCA: s.hubCA(), Pairs: pairs,
		Address: env.Service.TCP, Service: serviceNamespace + "/" + serviceName,
		ServiceCA: env.CA, DNSServer: env.Service.Names,
		// Nobody asks for the API server where there is none.
		Kubernetes: kubernetes{Host: "https://127.0.0.1:1", CA: env.CA},
	}
	if k := env.Kube; k != nil {
		cfg.Kubernetes = kubernetes{Host: k.URL, CA: k.CA, Token: k.Token}
	}
	_, err := s.add(ctx, env.Far, process.Spec{Name: name, Role: agentRole, Config: cfg})
	return err
}

func (s *Subject) state() string { return filepath.Join(s.folder, "state") }

func (s *Subject) hubCA() string {
	return filepath.Join(server.PKIDir(s.state()), pki.RoleServing+"-ca.crt")
}

// issue makes the certificate of a cluster's agent; the hub must have made its
// CAs.
func (s *Subject) issue(name string) (keyPair, error) {
	agents, err := pki.LoadOrCreate(server.PKIDir(s.state()), pki.RoleAgents)
	if err != nil {
		return keyPair{}, fmt.Errorf("agents CA: %w", err)
	}
	ca, err := os.ReadFile(s.hubCA())
	if err != nil {
		return keyPair{}, fmt.Errorf("serving CA: %w", err)
	}
	key, err := pki.NewKey()
	if err != nil {
		return keyPair{}, fmt.Errorf("agent key: %w", err)
	}
	cert, err := agents.IssueAgent(key.Public(), server.DefaultTrustDomain, name, pki.DefaultLifetime)
	encoded, kerr := pki.EncodeKey(key)
	if err := errors.Join(err, kerr); err != nil {
		return keyPair{}, fmt.Errorf("agent certificate: %w", err)
	}
	dir := filepath.Join(s.folder, name)
	if err := pki.WriteKeyPair(dir, cert, encoded, ca); err != nil {
		return keyPair{}, fmt.Errorf("agent certificate: %w", err)
	}
	return keyPair{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}, nil
}
