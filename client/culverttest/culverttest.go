// Package culverttest runs a hub and agents in the process of a test, so that programs
// that use package client can be tested with the real thing.
//
//	hub := culverttest.Start(t, culverttest.Config{})
//	c := hub.Client(t)
//	conn, err := c.DialContext(ctx, "test", "tcp", listener.Addr().String())
//
// They are the hub and the agent of production, on a port of the loopback interface and
// with their state in a temporary folder; nothing is left when the test ends. [Run] is for
// where there is no test: TestMain, and examples.
//
// What a program does while a cluster or the hub is away, and after that, shows with
// [Hub.StopAgent] and [Hub.StartAgent], [Hub.StopHub] and [Hub.StartHub].
package culverttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/server"
)

// Config says what runs. The zero value is a hub with one cluster, "test".
type Config struct {
	// Clusters are the names of clusters, each with an agent. Default "test".
	Clusters []string
	// Kubernetes answers as the API server of all clusters, which are told apart by the
	// header Culvert-Test-Cluster. Requests have the agent's impersonation headers, as a
	// real API server gets them. Default: what any path is answered with is the request's
	// line and its user.
	Kubernetes http.Handler
	// Policy is the hub's, in YAML (docs/policy.md). Default: everything is allowed.
	Policy string
	// User is whom the client is, with Groups. Default "tester".
	User   string
	Groups []string
	// Logger gets the lines of hub and agents. Default: nobody does.
	Logger *slog.Logger
}

// Hub is a hub with its agents. It is safe for concurrent use.
type Hub struct {
	// URL is the hub's, CAFile the PEM file of its CA, and Token a bearer token of
	// Config.User.
	URL, CAFile, Token string

	state  string
	log    *slog.Logger
	config server.Config
	close  func() error

	mu     sync.Mutex // one start or stop at a time; guards what follows
	server *server.Server
	hub    process
	agents map[string]*member
}

// member is the agent of a cluster.
type member struct {
	config agent.Config
	api    *httptest.Server
	run    process
}

// allowAll is the default policy.
const allowAll = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: everything
  effect: allow
  kubernetes: [{}]
  services: [{namespace: "*", name: "*"}]
  tcp:
  - {hosts: ["*"], ports: ["*"]}
  - {cidrs: ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128"], ports: ["*"]}
`

const (
	// startTime bounds the start of everything, and of what was stopped.
	startTime = 30 * time.Second
	// drainTime is how long sessions may go on when a hub or an agent is stopped: tests
	// are not to wait for those that they forgot.
	drainTime = time.Second
)

// Start runs a hub and agents until the test ends. It returns once every agent is
// connected; what fails ends the test.
func Start(t testing.TB, cfg Config) *Hub {
	t.Helper()
	h, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("culverttest: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("culverttest: %v", err)
		}
	})
	return h
}

// Run runs a hub and agents until Close, for TestMain and examples. It returns once every
// agent is connected; ctx bounds that wait alone.
func Run(ctx context.Context, cfg Config) (*Hub, error) {
	state, err := os.MkdirTemp("", "culverttest-")
	if err != nil {
		return nil, err
	}
	h := &Hub{Token: rand.Text(), state: state, log: cfg.Logger, agents: make(map[string]*member)}
	h.close = sync.OnceValue(h.end)
	if err := h.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close ends the agents and the hub. Clients are their owners' to close.
func (h *Hub) Close() error { return h.close() }

// end ends everything, agents first.
func (h *Hub) end() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for name, m := range h.agents {
		if err := m.run.stop(); err != nil {
			errs = append(errs, fmt.Errorf("agent of %s: %w", name, err))
		}
		m.api.Close()
	}
	return errors.Join(append(errs, h.hub.stop(), os.RemoveAll(h.state))...)
}

func (h *Hub) start(ctx context.Context, cfg Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(cfg.Clusters) == 0 {
		cfg.Clusters = []string{"test"}
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	tokens, policy := filepath.Join(h.state, "tokens.csv"), filepath.Join(h.state, "policy.yaml")
	user := cmp.Or(cfg.User, "tester")
	var line bytes.Buffer
	if err := csv.NewWriter(&line).WriteAll([][]string{{h.Token, user, user, strings.Join(cfg.Groups, ",")}}); err != nil {
		return err
	}
	err := errors.Join(os.WriteFile(tokens, line.Bytes(), 0o600), os.WriteFile(policy, []byte(cmp.Or(cfg.Policy, allowAll)), 0o600),
		os.WriteFile(filepath.Join(h.state, "agent.yaml"), []byte(allowAll), 0o600))
	if err != nil {
		return err
	}
	h.config = server.Config{
		Listen: []string{"127.0.0.1:0"}, State: filepath.Join(h.state, "hub"), TokenFile: tokens,
		Policy: &server.Policy{File: policy}, DrainTimeout: metav1.Duration{Duration: drainTime}, Logger: h.log,
	}
	if err := h.startHub(ctx); err != nil {
		return err
	}
	h.config.Listen = []string{h.server.Addr().String()} // after a stop, too
	_, port, err := net.SplitHostPort(h.config.Listen[0])
	if err != nil {
		return err
	}
	h.URL, h.CAFile = "https://localhost:"+port, filepath.Join(h.state, "ca.crt")
	if err := os.WriteFile(h.CAFile, h.server.ServingCA(), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for _, name := range cfg.Clusters {
		if err := h.join(ctx, name, cfg); err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
	}
	return h.await(ctx, cfg.Clusters)
}

// join enrols an agent as any agent is, and runs it.
func (h *Hub) join(ctx context.Context, name string, cfg Config) error {
	state := filepath.Join(h.state, "agents", name)
	hub := admin.NewSocketClient(filepath.Join(h.state, "hub"))
	defer hub.Close()
	token, err := hub.CreateToken(ctx, admin.TokenRequest{Cluster: name, Hub: h.URL[len("https://"):]})
	if err != nil {
		return err
	}
	m := &member{api: httptest.NewServer(named(name, cfg.Kubernetes))}
	h.agents[name] = m
	m.config = agent.Config{
		State: state, Kubernetes: &rest.Config{Host: m.api.URL}, Name: name + "-agent", Logger: h.log,
		Policy:           filepath.Join(h.state, "agent.yaml"),
		SpecialAddresses: []string{"127.0.0.0/8", "::1/128"},
		DrainTimeout:     metav1.Duration{Duration: drainTime},
	}
	if err := agent.Join(ctx, m.config, agent.JoinConfig{Token: token.Text}); err != nil {
		return err
	}
	return m.start()
}

// named puts the cluster's name into requests.
func named(cluster string, api http.Handler) http.Handler {
	if api == nil {
		api = http.HandlerFunc(echo)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Culvert-Test-Cluster", cluster)
		api.ServeHTTP(w, r)
	})
}

// echo answers what came.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := fmt.Sprintf("%s %s as %s at %s\n", r.Method, r.URL.RequestURI(), r.Header.Get("Impersonate-User"), r.Header.Get("Culvert-Test-Cluster"))
	_, _ = io.WriteString(w, text) //nolint:gosec // plain text; who went away needs no answer
}

// Config returns the configuration of a client.
func (h *Hub) Config() client.Config {
	return client.Config{Hub: h.URL, HubCA: h.CAFile, Token: h.Token, UserAgent: "culverttest", Logger: h.log}
}

// Client returns a client, which is closed when the test ends.
func (h *Hub) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(h.Config())
	if err != nil {
		t.Fatalf("culverttest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("culverttest: close the client: %v", err)
		}
	})
	return c
}
