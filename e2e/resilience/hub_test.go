package resilience

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/server"
)

// hub is one hub with a state folder and a port of its own, as a process or
// embedded in the test.
type hub struct {
	lab   *lab
	dir   string
	port  *testbed.Port
	certs string // of its agents of the cluster clusterName
	ca    []byte // verifies it
	// policy is a file that leaves services to agents.
	policy string

	process *testbed.Process // nil when embedded
	server  *server.Server   // nil unless embedded
}

// newHub makes folders, keys and a port; nothing runs yet.
func (l *lab) newHub(t *testing.T, name string) *hub {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	h := &hub{lab: l, dir: filepath.Join(l.dir, name)}
	h.certs = filepath.Join(h.dir, "agent")
	must(t, os.Mkdir(h.dir, 0o700))
	l.cli(ctx, t, "pki", "init", "--state", h.state())
	l.cli(ctx, t, "pki", "agent", "--state", h.state(), "--cluster", clusterName, "--out", h.certs)
	must(t, os.WriteFile(h.tokens(), []byte(tokenFile), 0o600))
	var err error
	h.ca, err = os.ReadFile(filepath.Join(h.certs, "ca.crt"))
	must(t, err)
	h.policy, err = testbed.WriteOpenPolicy(h.dir)
	must(t, err)
	h.port, err = testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(h.port.Close)
	return h
}

func (h *hub) state() string  { return filepath.Join(h.dir, "state") }
func (h *hub) tokens() string { return filepath.Join(h.dir, "tokens.csv") }
func (h *hub) url() string    { return "https://" + h.port.Addr() }

// startHub runs a hub as a process and waits until it listens.
func (l *lab) startHub(t *testing.T, name string) *hub {
	t.Helper()
	h := l.newHub(t, name)
	var err error
	h.process, err = testbed.StartProcess(t.Context(), testbed.ProcessConfig{
		Name: "hub", Path: l.culvert.Hub, LogDir: h.dir,
		Args: []string{
			"--listen", h.port.Addr(), "--tls-name", testbed.HubAddress.String(),
			"--state", h.state(), "--token-file", h.tokens(), "--policy", h.policy,
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, h.process.Kill9()) })
	h.awaitListening(t)
	return h
}

// awaitListening returns at the time when the hub's port takes a connection, to
// about a millisecond.
func (h *hub) awaitListening(t *testing.T) time.Time {
	t.Helper()
	ctx := within(t, time.Minute)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.port.Addr())
		if err == nil {
			now := time.Now()
			check(t, conn.Close())
			return now
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the hub does not listen: %v", err)
		case <-ticker.C:
		}
	}
}

// startEmbedded runs a hub inside of the test, which can open raw sessions.
func (l *lab) startEmbedded(t *testing.T, name string) *hub {
	t.Helper()
	h := l.newHub(t, name)
	log, err := os.OpenFile(filepath.Join(h.dir, "hub.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	t.Cleanup(func() { check(t, log.Close()) })
	h.server, err = server.New(t.Context(), server.Config{
		Listen: []string{h.port.Addr()}, TLSNames: []string{testbed.HubAddress.String()},
		State: h.state(), TokenFile: h.tokens(), Policy: &server.Policy{File: h.policy},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go runServer(ctx, h.server, ended)
	t.Cleanup(func() {
		stop()
		check(t, <-ended)
	})
	return h
}

// runServer sends one result, when ctx has ended and the hub has drained.
func runServer(ctx context.Context, s *server.Server, ended chan<- error) { ended <- s.Run(ctx) }

// startAgent runs an agent of the managed cluster in the private network. It does
// not wait for its tunnel. The name must be unique for the hub.
func (h *hub) startAgent(t *testing.T, name string) *testbed.Process {
	t.Helper()
	p, err := testbed.StartProcess(t.Context(), testbed.ProcessConfig{
		Name: name, Path: h.lab.culvert.Agent, LogDir: h.dir, Namespace: h.lab.private.Inside,
		Args: []string{
			"--hub", h.port.Addr(), "--hub-ca", filepath.Join(h.certs, "ca.crt"),
			"--cert", filepath.Join(h.certs, "tls.crt"), "--key", filepath.Join(h.certs, "tls.key"),
			"--kubeconfig", h.lab.agentKubeconfig, "--dns-server", testbed.DNSAddress.String(),
			"--drain-timeout", "1m", // far more than tests have it drain
			"--allow-service", "default/target",
			"--allow-address", testbed.InsideAddress.String() + ":*",
			"--allow-address", absentHost + ":*",
			"--allow-address", unknownHost + ":*",
		},
	})
	must(t, err)
	t.Cleanup(func() { check(t, p.Kill9()) })
	return p
}

// awaitAgents waits until the hub's log tells of n agents that connected since it
// was begun.
func (h *hub) awaitAgents(t *testing.T, n int) {
	t.Helper()
	err := testbed.Poll(within(t, time.Minute), fmt.Sprintf("%d agents", n), func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(h.dir, "hub.log"))
		if err != nil {
			return err
		}
		if got := strings.Count(string(text), `msg="agent connected"`); got < n {
			return fmt.Errorf("%d have connected: %s", got, text)
		}
		return nil
	})
	must(t, err)
}

// awaitServing waits until a request through the tunnel succeeds.
func (h *hub) awaitServing(t *testing.T, c *caller) {
	t.Helper()
	must(t, testbed.Poll(within(t, time.Minute), "a request through the tunnel", func(ctx context.Context) error {
		a, err := c.get(ctx, versionPath)
		return errors.Join(err, a.wantOK())
	}))
}
